// The tasks of a call on many threads: which share of the threads' time is
// work, where taking a task, memory and waking cost nothing. The tasks are
// those of the plan; their times are the query-key pairs that they see. Prints
// a table.

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <vector>

#include "kernels/attention/kernel_table.h"
#include "kernels/attention/plan.h"
#include "tests/check.h"

namespace hw3tf {
namespace {

constexpr int kThreads[] = {2, 8, 16, 64, 128};
// At least, on 16 and on 64 threads.
constexpr double kOn16 = 0.85, kOn64 = 0.60;

struct Call {
  const char* name;
  AttentionShape shape;  // B, T, S, N, K, H, value_dim
  bool is_causal;
  int64_t window;               // on both sides; negative: none
  std::vector<int64_t> splits;  // of packed sequences
  bool shares_bias = false;     // with the gradient of a bias of (1, N, T, S)
  // So many threads are too many for the chunks of the backward pass. Smaller
  // ones would pack the queries more often, at some percent on few threads.
  int few_chunks_on = 1 << 30;
};

std::vector<int64_t> Ragged() {
  std::vector<int64_t> splits;
  for (int64_t i = 0; i < 32; ++i) splits.push_back(128 * i);
  splits.push_back(31 * 128 + 8192);
  return splits;
}

std::vector<Call> Calls() {
  return {
      {"B1 T2048 N12",
       {1, 2048, 2048, 12, 12, 64, 64},
       false,
       -1,
       {},
       false,
       64},
      {"B1 T4096 N8", {1, 4096, 4096, 8, 8, 64, 64}, false, -1, {}},
      {"B1 T4096 N8 causal", {1, 4096, 4096, 8, 8, 64, 64}, true, -1, {}},
      {"B1 T8192 N4 causal", {1, 8192, 8192, 4, 4, 64, 64}, true, -1, {}},
      {"B1 T2048 N32 K8 H128 causal",
       {1, 2048, 2048, 32, 8, 128, 128},
       true,
       -1,
       {}},
      {"B1 T4096 N1 causal", {1, 4096, 4096, 1, 1, 64, 64}, true, -1, {}},
      {"B1 T4096 N1 H512", {1, 4096, 4096, 1, 1, 512, 512}, false, -1, {}},
      {"B8 T512 N12", {8, 512, 512, 12, 12, 64, 64}, false, -1, {}},
      {"B32 T128 N12", {32, 128, 128, 12, 12, 64, 64}, false, -1, {}},
      {"B1 T512 N12", {1, 512, 512, 12, 12, 64, 64}, false, -1, {}, false, 16},
      {"B1 T128 N12", {1, 128, 128, 12, 12, 64, 64}, false, -1, {}, false, 16},
      {"B1 T4096 S77 N8 H40", {1, 4096, 77, 8, 8, 40, 40}, false, -1, {}},
      {"B1 T256 S50176 N1", {1, 256, 50176, 1, 1, 64, 64}, false, -1, {}},
      {"B1 T16384 N8 window 256",
       {1, 16384, 16384, 8, 8, 64, 64},
       false,
       256,
       {}},
      {"B1 T16384 N1 window 256",
       {1, 16384, 16384, 1, 1, 64, 64},
       false,
       256,
       {}},
      {"B1 T8000 N8 window 255", {1, 8000, 8000, 8, 8, 64, 64}, false, 255, {}},
      {"B1 T4096 N8 causal, window 1023",
       {1, 4096, 4096, 8, 8, 64, 64},
       true,
       1023,
       {}},
      {"B64 T768 N3 K1 window 60", {64, 768, 768, 3, 1, 64, 64}, false, 60, {}},
      {"31 x T128, 1 x T8192, N8",
       {32, 8192, 8192, 8, 8, 64, 64},
       false,
       -1,
       Ragged()},
      {"B256 T49 N4 H32, bias",
       {256, 49, 49, 4, 4, 32, 32},
       false,
       -1,
       {},
       true},
      {"B32 T128 N12, bias",
       {32, 128, 128, 12, 12, 64, 64},
       false,
       -1,
       {},
       true},
      {"B8 T512 N12, bias", {8, 512, 512, 12, 12, 64, 64}, false, -1, {}, true},
      {"B1 T2048 N12, bias",
       {1, 2048, 2048, 12, 12, 64, 64},
       false,
       -1,
       {},
       true,
       64},
  };
}

AttentionOptions OptionsOf(const Call& call) {
  AttentionOptions options;
  options.is_causal = call.is_causal;
  options.window_before = options.window_after = call.window;
  if (!call.splits.empty())
    options.query_splits = options.key_splits = call.splits.data();
  return options;
}

// Keys [begin, end) of the sequence that row `row` of a group of heads sees.
double Pairs(const AttentionPlan& plan, const Sequence& s, int64_t row,
             int64_t begin, int64_t end) {
  const int64_t t = row / plan.group;
  return static_cast<double>(
      std::max<int64_t>(0, std::min(end, t + plan.after + 1) -
                               std::max(begin, t - plan.before)) *
      (t < s.query_end));
}

double Forward(const Call& call, const AttentionTiles& tiles, int threads,
               size_t* tasks) {
  const AttentionOptions options = OptionsOf(call);
  PlanStorage storage(call.shape, options);
  const int64_t splits = storage.KeySplits(tiles.query_tile);
  if (splits > 1) storage.Split(splits, nullptr);
  storage.AddQueryBlocks(QueryBlock(tiles, call.shape), tiles.query_tile,
                         threads);
  const AttentionPlan plan = storage.View();
  *tasks = static_cast<size_t>(plan.num_tasks);
  std::vector<double> free_at(static_cast<size_t>(threads), 0.0);
  double work = 0;
  for (int64_t i = 0; i < plan.num_tasks; ++i) {
    const AttentionTask& task = plan.tasks[i];
    const Sequence& s = plan.sequences[task.b];
    const auto next = std::min_element(free_at.begin(), free_at.end());
    for (int64_t row = task.first; row < task.first + task.count; ++row) {
      const double pairs = Pairs(plan, s, row, s.key_begin, s.key_end);
      work += pairs;
      *next += pairs;
    }
  }
  return work / threads / *std::max_element(free_at.begin(), free_at.end());
}

// Of turns: when each was last passed.
using Turns = std::map<std::array<int64_t, 3>, double>;

// What a task does beside its pairs, in pairs: passing a turn, adding a key's
// gradients to those of the ranges before.
constexpr double kOfTurn = 30, kOfKey = 4;
// The share of a pair in which its gradient is added to a bias that is shared.
constexpr double kOfBias = 0.1;

double Backward(const Call& call, const AttentionTiles& tiles, int threads,
                size_t* tasks) {
  constexpr int64_t kBlockRows = 64;
  const AttentionOptions options = OptionsOf(call);
  PlanStorage storage(call.shape, options);
  storage.AddKeyChunks(tiles.key_chunk, tiles.key_chunk / 64, call.shares_bias,
                       kBlockRows);
  const AttentionPlan plan = storage.View();
  *tasks = static_cast<size_t>(plan.num_tasks);
  Turns query_turns, key_turns, bias_turns;
  std::vector<double> free_at(static_cast<size_t>(threads), 0.0);
  double work = 0;
  for (int64_t i = 0; i < plan.num_tasks; ++i) {
    const AttentionTask& task = plan.tasks[i];
    const Sequence& s = plan.sequences[task.b];
    const auto thread = std::min_element(free_at.begin(), free_at.end());
    double now = *thread;
    const auto wait = [&](Turns* turns, std::array<int64_t, 3> which,
                          double cost) {
      double& passed = (*turns)[which];
      passed = now = std::max(now, passed) + cost;
    };
    const int64_t rows = s.query_len * plan.group;
    CHECK(task.count <= tiles.key_chunk,
          "%s: a chunk is larger than its scratch", call.name);
    for (int64_t k = 0; k < task.block_count; ++k) {
      const int64_t block = task.block_first + k;
      double pairs = 0;
      for (int64_t row = block * kBlockRows;
           row < std::min(rows, (block + 1) * kBlockRows); ++row)
        pairs += Pairs(plan, s, row, task.first, task.first + task.count);
      work += pairs;
      now += pairs * (call.shares_bias ? 1 - kOfBias : 1);
      if (call.shares_bias)
        wait(&bias_turns, {task.index, block, task.kv_head}, pairs * kOfBias);
      if (pairs > 0) wait(&query_turns, {task.b, task.kv_head, block}, kOfTurn);
    }
    if (task.ranges > 1)
      wait(&key_turns, {task.b, task.kv_head, task.index},
           kOfKey * static_cast<double>(task.count));
    *thread = now;
  }
  return work / threads / *std::max_element(free_at.begin(), free_at.end());
}

void Run(const char* pass, decltype(Forward) share_of,
         const AttentionTiles& tiles) {
  for (const Call& call : Calls())
    for (const int threads : kThreads) {
      size_t tasks = 0;
      const double share = share_of(call, tiles, threads, &tasks);
      std::printf(
          "{\"pass\": \"%s\", \"tile\": %d, \"call\": \"%s\", "
          "\"threads\": %d, \"tasks\": %zu, \"share\": %.3f}\n",
          pass, tiles.query_tile, call.name, threads, tasks, share);
      const double least = threads == 16 ? kOn16 : threads == 64 ? kOn64 : 0;
      if (share_of == Backward && threads >= call.few_chunks_on) continue;
      EXPECT(share >= least, "%s, %s on %d: %g", pass, call.name, threads,
             share);
    }
}

}  // namespace
}  // namespace hw3tf

int main() {
  using namespace hw3tf;
  for (const AttentionTiles& tiles : {AttentionTiles{32, 1024, 128, 512},
                                      AttentionTiles{16, 1024, 96, 384}}) {
    Run("forward", Forward, tiles);
    Run("backward", Backward, tiles);
  }
  return Failures() ? 1 : 0;
}
