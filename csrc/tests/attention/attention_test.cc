// Forward and backward through attention.h, on the instruction set that
// HW3TF_ISA names, against the plain form in float64. Every two options meet.

#include "kernels/attention/attention.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/runtime/dispatch.h"
#include "tests/attention/case.h"
#include "tests/attention/inputs.h"
#include "tests/attention/judge.h"
#include "tests/attention/results.h"
#include "tests/check.h"

namespace hw3tf {
namespace {

// CTest's number for a test that could not run here.
constexpr int kSkipped = 77;

void RunCase(const Case& c) {
  const Inputs inputs(c, c.dtype, Poison::kNone);
  const Inputs exact(c, DType::kFloat64, Poison::kNone);
  const Results one(inputs);
  RunKernels(inputs, one, 1);
  Judge(inputs, exact, one);
  for (int threads : {2, 8}) {
    const Results more(inputs);
    RunKernels(inputs, more, threads);
    more.CheckSameBits(one, c);
  }
}

// NaN reaches the queries that see it, and no others.
void RunPoisoned(const Case& c, Poison poison) {
  if (poison == Poison::kBias && c.bias == Bias::kNone) return;
  const Inputs inputs(c, c.dtype, poison);
  const Inputs exact(c, DType::kFloat64, poison);
  const Results got(inputs);
  RunKernels(inputs, got, 2);
  Judge(inputs, exact, got);
}

// No sequence, no query: gradients of keys are zeros, and nothing breaks.
void RunEmpty() {
  for (int which = 0; which < 2; ++which) {
    Case c = {};
    c.all_outputs = true;
    c.shape = {which, 1 - which, 5, 2, 1, 8, 8};
    const Inputs inputs(c, c.dtype, Poison::kNone);
    const Results results(inputs);
    RunKernels(inputs, results, 2);
    for (double x : results.grad_key.Values()) CHECK(x == 0.0, "%g", x);
    for (double x : results.grad_value.Values()) CHECK(x == 0.0, "%g", x);
  }
}

// The sizes around those of the registers and tiles.
CaseSizes Sizes() {
  const std::vector<int64_t> sizes = {1,  7,  16,  17,  31, 32,
                                      33, 64, 100, 129, 257};
  CaseSizes all = {sizes, sizes, sizes, sizes};
  const auto add = [](std::vector<int64_t>* list, int64_t size) {
    if (std::find(list->begin(), list->end(), size) == list->end())
      list->push_back(size);
  };
  const AttentionTiles tiles = GetAttentionTiles();
  add(&all.query_len, tiles.query_tile + 1);
  add(&all.query_len, tiles.query_block + 1);
  add(&all.key_len, tiles.key_tile + 1);
  add(&all.key_len, tiles.key_chunk + 1);
  return all;
}

// Whether HW3TF_ISA names something that this machine can run.
bool CanRun(const std::string& wish) {
  for (const InstructionSet& set : CompiledInstructionSets())
    if (wish == set.name) return set.supported;
  return false;
}

int Main(int every) {
  const char* wish = std::getenv("HW3TF_ISA");
  if (wish && !CanRun(wish)) {
    std::printf("%s: not on this machine\n", wish);
    return kSkipped;
  }
  CHECK(EnvironmentError().empty(), "%s", EnvironmentError().c_str());
  const std::string name = ChosenInstructionSet().name;
  CHECK(!wish || name == wish, "runs on %s", name.c_str());
  std::vector<Case> cases;
  int pairs = AddCases(Sizes(), Terms::kAll, &cases), run = 0;
  pairs += AddCases(Sizes(), Terms::kFew, &cases);
  // One query or few after many keys, as in models that write text.
  const std::vector<int64_t> sizes = {1, 16, 31, 64, 100};
  pairs += AddCases({{1, 2, 3, 5}, {511, 512, 513, 1025, 1700}, sizes, sizes},
                    Terms::kNone, &cases);
  for (const Case& c : cases) {
    if (c.number % every != 0) continue;
    RunCase(c);
    for (int poison = 1; poison < static_cast<int>(Poison::kCount); ++poison)
      RunPoisoned(c, static_cast<Poison>(poison));
    ++run;
  }
  RunEmpty();
  std::printf("%d of %zu cases, which cover %d pairs of options, on %s\n", run,
              cases.size(), pairs, name.c_str());
  return Failures() > 0;
}

}  // namespace
}  // namespace hw3tf

// The argument, 1 by default: only every so many of the cases.
int main(int argc, char** argv) {
  return hw3tf::Main(argc > 1 ? std::atoi(argv[1]) : 1);
}
