// The tasks of a call on many threads: which share of the threads' time is
// work, where taking a task, memory and waking cost nothing. The tasks are
// those of the plan; their times are the query-key pairs that they see. Prints
// a table.

#include <algorithm>
#include <cstdio>
#include <functional>
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
};

std::vector<int64_t> Ragged() {
  std::vector<int64_t> splits;
  for (int64_t i = 0; i < 32; ++i) splits.push_back(128 * i);
  splits.push_back(31 * 128 + 8192);
  return splits;
}

std::vector<Call> Calls() {
  return {
      {"B1 T2048 N12", {1, 2048, 2048, 12, 12, 64, 64}, false, -1, {}},
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
      {"B1 T512 N12", {1, 512, 512, 12, 12, 64, 64}, false, -1, {}},
      {"B1 T128 N12", {1, 128, 128, 12, 12, 64, 64}, false, -1, {}},
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
      {"31 x T128, 1 x T8192, N8",
       {32, 8192, 8192, 8, 8, 64, 64},
       false,
       -1,
       Ragged()},
      {"B256 T49 N4 H32", {256, 49, 49, 4, 4, 32, 32}, false, -1, {}},
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

void Run(const char* pass, const AttentionTiles& tiles) {
  for (const Call& call : Calls()) {
    std::printf("| %s, tiles of %d | %s |", pass,
                static_cast<int>(tiles.query_tile), call.name);
    for (const int threads : kThreads) {
      size_t tasks = 0;
      const double share = Forward(call, tiles, threads, &tasks);
      std::printf(" %.0f %% (%zu) |", 100 * share, tasks);
      if (threads == 16) EXPECT(share >= kOn16, "%s: %g", call.name, share);
      if (threads == 64) EXPECT(share >= kOn64, "%s: %g", call.name, share);
    }
    std::printf("\n");
  }
}

}  // namespace
}  // namespace hw3tf

int main() {
  using namespace hw3tf;
  Run("forward", {32, 1024, 128, 512});
  Run("forward", {16, 1024, 96, 384});
  return Failures() ? 1 : 0;
}
