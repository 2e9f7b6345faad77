// The RNN kernels through rnn.h, on the instruction set that HW3TF_ISA names,
// against the formula; and the formula's gradients against differences.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

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

// `activation` of each number: a simple RNN of one unit and one step.
std::vector<float> Activated(RnnActivation activation,
                             const std::vector<float>& inputs) {
  const float one = 1;
  RnnForwardArgs args{};
  args.cell = RnnCell::kSimple;
  args.dtype = RnnDType::kFloat32;
  args.shape = {static_cast<int64_t>(inputs.size()), 1, 1, 1};
  args.options.activation = activation;
  args.operands.inputs = inputs.data();
  args.operands.input_batch_stride = args.operands.input_time_stride = 1;
  args.operands.kernel = args.operands.recurrent_kernel = &one;
  std::vector<float> outputs(inputs.size()), last(inputs.size());
  args.outputs = outputs.data();
  args.last_h = last.data();
  CHECK(RnnForward(args, 1), "out of memory");
  return outputs;
}

double UnitsInTheLastPlace(float found, double wanted) {
  int exponent;
  std::frexp(wanted, &exponent);
  return std::fabs(found - wanted) / std::ldexp(1.0, exponent - 24);
}

// The errors that the comments of lanes-inl.h state, a little above what was
// measured; and what has no neighbours.
void CheckActivations() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> x = {0.0f, -0.0f, 1e30f, -1e30f, kInfinity, -kInfinity};
  const std::vector<float> rest = {0.0f, -0.0f, 1.0f, -1.0f, 1.0f, -1.0f};
  CHECK(Activated(RnnActivation::kTanh, x) == rest, "tanh of extremes");
  const std::vector<float> gates = Activated(RnnActivation::kSigmoid, x);
  CHECK(gates[0] == 0.5f && gates[2] == 1.0f && gates[4] == 1.0f,
        "sigmoid of large numbers");
  CHECK(gates[3] < 1e-37f && gates[5] < 1e-37f, "sigmoid of -infinity");
  x.clear();
  for (float size = 1e-30f; size < 86; size *= size < 1e-3f ? 1.3f : 1.0001f)
    x.push_back(size), x.push_back(-size);
  const auto tanh = Activated(RnnActivation::kTanh, x);
  const auto sigmoid = Activated(RnnActivation::kSigmoid, x);
  for (size_t i = 0; i < x.size(); ++i) {
    const double y = static_cast<double>(x[i]);
    const double units[] = {
        UnitsInTheLastPlace(tanh[i], std::tanh(y)),
        UnitsInTheLastPlace(sigmoid[i], 1 / (1 + std::exp(-y)))};
    CHECK(units[0] <= 2.0, "tanh(%g) is off by %g units", y, units[0]);
    CHECK(units[1] <= (y > -16 ? 2.0 : 2.5), "sigmoid(%g) is off by %g units",
          y, units[1]);
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const auto activation : {RnnActivation::kTanh, RnnActivation::kSigmoid})
    CHECK(std::isnan(Activated(activation, {nan})[0]), "NaN is lost");
}

int Main(int every) {
  const char* wish = std::getenv("HW3TF_ISA");
  if (wish && ChosenInstructionSet().name != std::string(wish)) return kSkipped;
  CheckActivations();
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
