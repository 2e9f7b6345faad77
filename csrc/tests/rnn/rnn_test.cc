// The RNN kernels through rnn.h, on the instruction set that HW3TF_ISA names,
// against the formula; and the formula's gradients against differences.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/runtime/dispatch.h"
#include "kernels/runtime/test_hooks.h"
#include "tests/check.h"
#include "tests/rnn/case.h"

namespace hw3tf {
namespace {

// CTest's number for a test that could not run here.
constexpr int kSkipped = 77;
constexpr RnnCell kCells[] = {RnnCell::kSimple, RnnCell::kGru, RnnCell::kLstm};

// Moves every number of an array, and compares what the objective does with
// the gradient.
void CheckDifferences(RnnCase* c, Numbers* numbers, const Numbers& grads,
                      const char* name) {
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < numbers->size(); ++i) {
    double& x = (*numbers)[i];
    const double before = x;
    x = before + kStep;
    const double up = RnnObjective(*c);
    x = before - kStep;
    const double down = RnnObjective(*c);
    x = before;
    const double difference = (up - down) / (2 * kStep);
    EXPECT(
        std::fabs(difference - grads[i]) <= 1e-6 * (1 + std::fabs(difference)),
        "%s[%zu]: %g by differences, %g by the formula", name, i, difference,
        grads[i]);
  }
}

void CheckFormula(RnnRandom* random, int cases) {
  for (int i = 0; i < cases; ++i)
    for (const RnnCell cell : kCells) {
      RnnCase c = MakeRnnCase(random, cell, {2, 4, 2, 3}, /*smooth=*/true);
      const RnnResults results = RnnFormula(c);
      CheckDifferences(&c, &c.inputs, results.grad_inputs, "inputs");
      CheckDifferences(&c, &c.kernel, results.grad_kernel, "kernel");
      CheckDifferences(&c, &c.recurrent_kernel, results.grad_recurrent_kernel,
                       "recurrent_kernel");
      CheckDifferences(&c, &c.bias, results.grad_bias, "bias");
      CheckDifferences(&c, &c.recurrent_bias, results.grad_recurrent_bias,
                       "recurrent_bias");
      CheckDifferences(&c, &c.initial_h, results.grad_initial_h, "initial_h");
      CheckDifferences(&c, &c.initial_c, results.grad_initial_c, "initial_c");
    }
}

void RunCase(RnnRandom* random, RnnCell cell, const RnnShape& shape) {
  const RnnCase c = MakeRnnCase(random, cell, shape);
  const RnnResults wanted = RnnFormula(c);
  const Guard guard = random->OneIn(2) ? Guard::kEnd : Guard::kBegin;
  const auto dtype = static_cast<RnnDType>(random->Below(4));
  RnnCallInMemory call(c, dtype, guard, random->OneIn(2));
  // Small enough for several chunks, and for threads.
  test_hooks.always_threads = 1;
  test_hooks.meet = random->OneIn(2);
  test_hooks.rnn_chunk_rows = random->OneIn(2) ? 1 + random->Below(40) : 0;
  test_hooks.rnn_rows_ahead = random->OneIn(2) ? 1 + random->Below(9) : 0;
  for (int threads : {1, 2, 5}) {
    // Rows for some, units for others: the same bits.
    test_hooks.rnn_many_rows = 1 + random->Below(8);
    call.Check(wanted, threads);
  }
  test_hooks = TestHooks{};
}

int Main(int every) {
  const char* wish = std::getenv("HW3TF_ISA");
  if (wish && ChosenInstructionSet().name != std::string(wish)) return kSkipped;
  RnnRandom random(11);
  CheckFormula(&random, 40 / every + 1);
  constexpr int64_t kBatch[] = {0, 1, 1, 2, 3, 5, 6, 7, 13, 33};
  constexpr int64_t kTime[] = {1, 1, 2, 3, 7, 20, 65};
  constexpr int64_t kFeatures[] = {1, 2, 3, 15, 16, 17, 65, 100};
  constexpr int64_t kUnits[] = {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 64, 70};
  for (int i = 0; i < 500 / every; ++i)
    for (const RnnCell cell : kCells) {
      RnnShape shape = {random.Of(kBatch), random.Of(kTime),
                        random.Of(kFeatures), random.Of(kUnits)};
      while (shape.batch * shape.timesteps * shape.units *
                 (shape.units + shape.features) >
             200000)
        shape.timesteps = (shape.timesteps + 1) / 2,
        shape.batch = (shape.batch + 1) / 2;
      RunCase(&random, cell, shape);
    }
  if (Failures()) return 1;
  std::printf("rnn on %s: ok\n", ChosenInstructionSet().name);
  return 0;
}

}  // namespace
}  // namespace hw3tf

int main(int argc, char** argv) {
  return hw3tf::Main(argc > 1 ? std::atoi(argv[1]) : 1);
}
