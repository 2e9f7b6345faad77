// Random cases of the recurrence against the formula, in guarded memory. A seed
// draws everything: shapes, types, options, numbers, masks, threads, and the
// sizes by which the kernels cut their work.

#include <cstdint>

#include "kernels/recurrence/recurrence.h"
#include "kernels/runtime/test_hooks.h"
#include "tests/check.h"
#include "tests/fuzz.h"
#include "tests/recurrence/case.h"

namespace hw3tf {
namespace {

// Multiplications of a case: the formula takes some nanoseconds for each.
constexpr int64_t kMostWork = 50000;

RecurrenceShape DrawShape(Draw* draw) {
  RecurrenceShape s = {draw->Size(40), draw->Size(300), 1, 1};
  if (draw->OneIn(2)) {
    s.batch = draw->OneIn(2) ? s.batch : 2 + draw->Below(60);
  } else {
    s.features = draw->Size(33);
    s.units = draw->Size(70);
  }
  if (draw->OneIn(4)) {  // few long sequences
    s.batch = draw->Size(3);
    s.timesteps = draw->Size(4000);
  }
  while (s.batch * s.timesteps * s.units * (s.units + s.features) > kMostWork) {
    int64_t* const sizes[] = {&s.batch, &s.timesteps, &s.units};
    int64_t* const size = sizes[draw->Below(3)];
    *size = (*size + 1) / 2;
  }
  if (draw->OneIn(64)) s.timesteps = 0;
  if (draw->OneIn(256)) s.batch = 0;
  return s;
}

// Every sixth case has the sizes that users have.
TestHooks DrawHooks(Draw* draw, const RecurrenceShape& shape) {
  TestHooks hooks;
  if (draw->OneIn(6)) return hooks;
  const auto some = [draw](int64_t size) { return draw->OneIn(4) ? 0 : size; };
  hooks.always_threads = 1;
  hooks.meet = !draw->OneIn(8);
  // Parts of a sequence, or a few sequences.
  hooks.line_block = some(
      draw->OneIn(2) ? draw->Size(200) : (1 + shape.timesteps) * draw->Size(4));
  hooks.line_piece = some(draw->Size(40));
  hooks.stream_bytes = some(1);
  hooks.task_rows = some(draw->Size(8));
  hooks.time_block = some(draw->Size(16));
  hooks.shortest_chunk = some(draw->Size(40));
  return hooks;
}

void RunCase(uint64_t seed) {
  Draw draw(seed);
  Random random(seed);
  RecurrenceCase c = MakeCase(&random, DrawShape(&draw));
  if (draw.OneIn(2)) {  // what lines and chunks of time are for
    c.args.options.activation = Activation::kNone;
    c.args.options.fractional_bits = 0;
    if (c.args.shape.units == 1) c.mask.clear();
  }
  const TestHooks hooks = DrawHooks(&draw, c.args.shape);
  RecurrenceCall call(c, draw.OneIn(2) ? Guard::kEnd : Guard::kBegin,
                      static_cast<InputLayout>(draw.Below(3)));
  for (const int threads : {1, 2 + static_cast<int>(draw.Below(4))}) {
    const WithHooks with_hooks(hooks);
    call.Check(threads);
  }
}

}  // namespace
}  // namespace hw3tf

int main(int argc, char** argv) {
  constexpr uint32_t kPaths = hw3tf::kRnnRowsPath - hw3tf::kWholeLinesPath;
  return hw3tf::FuzzMain(argc, argv, "recurrence", kPaths, hw3tf::RunCase);
}
