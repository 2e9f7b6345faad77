// The recurrence through recurrence.h, on the instruction set that HW3TF_ISA
// names, against the formula: equal, or failing at the same place.

#include "kernels/recurrence/recurrence.h"

#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/runtime/dispatch.h"
#include "tests/check.h"
#include "tests/recurrence/case.h"

namespace hw3tf {
namespace {

// CTest's number for a test that could not run here.
constexpr int kSkipped = 77;

void RunCase(Random* random, const RecurrenceShape& shape) {
  const RecurrenceCase c = MakeCase(random, shape);
  const Guard guard = random->OneIn(2) ? Guard::kEnd : Guard::kBegin;
  RecurrenceCall call(c, guard, static_cast<InputLayout>(random->Below(3)));
  for (int threads : {1, 2, 5}) call.Check(threads);
}

void RunSmall(Random* random, int cases) {
  constexpr int64_t kBatch[] = {0, 1, 1, 2, 3, 9, 70};
  constexpr int64_t kTime[] = {0, 1, 2, 5, 17, 64, 65, 130, 700};
  constexpr int64_t kFeatures[] = {1, 1, 1, 2, 3, 8, 33};
  constexpr int64_t kUnits[] = {1, 1, 2, 3, 5, 16, 17, 33, 70};
  for (int i = 0; i < cases; ++i) {
    RecurrenceShape shape = {random->Of(kBatch), random->Of(kTime),
                             random->Of(kFeatures), random->Of(kUnits)};
    while (shape.batch * shape.timesteps * shape.units *
               (shape.units + shape.features) >
           300000)
      shape.timesteps /= 2;
    RunCase(random, shape);
  }
}

// Long enough for many blocks of a line, for chunks of time and for threads.
void RunLong(Random* random, int cases) {
  constexpr int64_t kTime[] = {32767, 32768, 32769, 100001};
  for (int i = 0; i < cases; ++i) {
    RunCase(random, {1 + random->Below(2), random->Of(kTime), 1, 1});
    RunCase(random, {1 + random->Below(2), random->Of(kTime) / 8, 2, 3});
    RunCase(random,
            {40 + random->Below(30), 256 + 64 * random->Below(2), 1, 1});
  }
}

int Main(int every) {
  const char* wish = std::getenv("HW3TF_ISA");
  if (wish && ChosenInstructionSet().name != std::string(wish)) return kSkipped;
  Random random(7);
  RunSmall(&random, 4000 / every);
  RunLong(&random, 60 / every);
  if (Failures()) return 1;
  std::printf("recurrence on %s: ok\n", ChosenInstructionSet().name);
  return 0;
}

}  // namespace
}  // namespace hw3tf

int main(int argc, char** argv) {
  return hw3tf::Main(argc > 1 ? std::atoi(argv[1]) : 1);
}
