// Random cases of the RNN kernels against the formula, in guarded memory. A
// seed draws everything: cells, shapes, types, options, masks, lengths,
// dropout, threads, and the sizes by which the kernels cut their work.

#include <cstdint>

#include "kernels/rnn/rnn.h"
#include "kernels/runtime/test_hooks.h"
#include "tests/check.h"
#include "tests/fuzz.h"
#include "tests/rnn/case.h"

namespace hw3tf {
namespace {

// Multiplications of a case: the formula takes some nanoseconds for each.
constexpr int64_t kMostWork = 60000;

RnnShape DrawShape(Draw* draw) {
  RnnShape s = {draw->Size(40), draw->Size(60), draw->Size(70), draw->Size(80)};
  if (draw->OneIn(4)) s.batch = draw->Size(3);
  while (s.batch * s.timesteps * s.units * (s.units + s.features) > kMostWork) {
    int64_t* const sizes[] = {&s.batch, &s.timesteps, &s.features, &s.units};
    int64_t* const size = sizes[draw->Below(4)];
    *size = (*size + 1) / 2;
  }
  if (draw->OneIn(256)) s.batch = 0;
  return s;
}

// Every sixth case has the sizes that users have.
TestHooks DrawHooks(Draw* draw) {
  TestHooks hooks;
  if (draw->OneIn(6)) return hooks;
  const auto some = [draw](int64_t size) { return draw->OneIn(4) ? 0 : size; };
  hooks.always_threads = 1;
  hooks.meet = !draw->OneIn(8);
  hooks.rnn_rows_ahead = some(draw->Size(24));
  hooks.rnn_many_rows = some(draw->Size(20));
  return hooks;
}

void RunCase(uint64_t seed) {
  Draw draw(seed);
  RnnRandom random(seed);
  const auto cell = static_cast<RnnCell>(draw.Below(3));
  const RnnCase c = MakeRnnCase(&random, cell, DrawShape(&draw));
  const RnnResults wanted = RnnFormula(c);
  const auto dtype = static_cast<RnnDType>(draw.Below(4));
  RnnCallInMemory call(c, dtype, draw.OneIn(2) ? Guard::kEnd : Guard::kBegin,
                       draw.OneIn(2));
  // Sums over other chunks have other bits.
  const int64_t chunk_rows = draw.OneIn(4) ? 0 : draw.Size(60);
  for (const int threads : {1, 2 + static_cast<int>(draw.Below(4))}) {
    TestHooks hooks = DrawHooks(&draw);
    hooks.rnn_chunk_rows = chunk_rows;
    const WithHooks with_hooks(hooks);
    call.Check(wanted, threads);
  }
}

}  // namespace
}  // namespace hw3tf

int main(int argc, char** argv) {
  constexpr uint32_t kPaths = (1u << hw3tf::kTestPaths) - hw3tf::kRnnRowsPath;
  return hw3tf::FuzzMain(argc, argv, "RNN", kPaths, hw3tf::RunCase);
}
