#include "tests/rnn/case.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/vector/element.h"

namespace hw3tf {
namespace {

size_t Size(int64_t size) { return static_cast<size_t>(size); }

size_t ElementSize(RnnDType dtype) {
  if (dtype == RnnDType::kFloat64) return sizeof(double);
  return dtype == RnnDType::kFloat32 ? sizeof(float) : sizeof(uint16_t);
}

void StoreElement(double x, RnnDType dtype, void* data, size_t i) {
  switch (dtype) {
    case RnnDType::kFloat64:
      return Store(x, static_cast<double*>(data) + i);
    case RnnDType::kFloat32:
      return Store(x, static_cast<float*>(data) + i);
    case RnnDType::kFloat16:
      return Store(x, static_cast<Float16*>(data) + i);
    default:
      return Store(x, static_cast<Bfloat16*>(data) + i);
  }
}

double LoadElement(const void* data, RnnDType dtype, size_t i) {
  switch (dtype) {
    case RnnDType::kFloat64:
      return Load(static_cast<const double*>(data)[i]);
    case RnnDType::kFloat32:
      return Load(static_cast<const float*>(data)[i]);
    case RnnDType::kFloat16:
      return Load(static_cast<const Float16*>(data)[i]);
    default:
      return Load(static_cast<const Bfloat16*>(data)[i]);
  }
}

// Of the largest number of the array: sums of thousands of terms in float32,
// and one rounding to the element.
double Tolerance(RnnDType dtype) {
  switch (dtype) {
    case RnnDType::kFloat64:
      return 1e-12;
    case RnnDType::kFloat32:
      return 1e-5;
    case RnnDType::kFloat16:
      return 1e-3;
    default:
      return 8e-3;
  }
}

// From 0 to 1.
bool IsGate(RnnActivation activation) {
  return activation == RnnActivation::kSigmoid ||
         activation == RnnActivation::kHardSigmoid;
}

// (gates or 1, batch, width): 0, or what keeps the mean.
Numbers DropoutMask(RnnRandom* random, int64_t count) {
  Numbers mask(Size(count));
  for (double& x : mask) x = random->OneIn(3) ? 0.0 : 1.5;
  return mask;
}

void DrawMask(RnnRandom* random, RnnCase* c) {
  const int64_t batch = c->shape.batch, timesteps = c->shape.timesteps;
  const int64_t kind = random->Below(6);
  if (kind == 1 || kind == 2) {  // any pattern, or its left or right end
    c->mask.resize(Size(batch * timesteps));
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t begin = kind == 2 ? random->Below(timesteps + 1) : 0;
      for (int64_t t = 0; t < timesteps; ++t)
        c->mask[Size(b * timesteps + t)] =
            kind == 1 ? !random->OneIn(3) : t >= begin;
    }
  }
  if (kind == 3 || (kind == 1 && random->OneIn(3))) {
    c->lengths.resize(Size(batch));
    for (int32_t& length : c->lengths)
      length = static_cast<int32_t>(random->Below(timesteps + 1));
  }
  if (kind == 4) c->mask.assign(Size(batch * timesteps), 0);
}

}  // namespace

Numbers RnnRandom::Normal(int64_t count, double size) {
  std::normal_distribution<double> normal(0, size);
  Numbers numbers(Size(count));
  for (double& x : numbers) {
    // 7 bits, as bfloat16 has; not so small that float16 would lose some.
    const double drawn = normal(engine_);
    x = std::ldexp(std::nearbyint(std::ldexp(drawn, 7)), -7);
    if (std::fabs(x) >= 1) x = std::ldexp(std::nearbyint(x * 32), -5);
  }
  return numbers;
}

RnnCase MakeRnnCase(RnnRandom* random, RnnCell cell, const RnnShape& shape,
                    bool smooth) {
  RnnCase c{};
  c.cell = cell;
  c.shape = shape;
  RnnOptions& options = c.options;
  const auto activation = [&] {
    return static_cast<RnnActivation>(smooth ? random->Below(2)
                                             : random->Below(5));
  };
  if (random->OneIn(2)) {
    options.activation = activation();
    options.recurrent_activation = activation();
    // Other gates, and other states, may grow with every step.
    constexpr int64_t kFewSteps = 3;
    while (shape.timesteps > kFewSteps && !IsGate(options.recurrent_activation))
      options.recurrent_activation = activation();
    while (shape.timesteps > kFewSteps * kFewSteps &&
           !IsGate(options.activation) &&
           options.activation != RnnActivation::kTanh)
      options.activation = activation();
  }
  options.reset_after = !random->OneIn(3);
  options.reverse = random->OneIn(3);
  options.return_sequences = random->OneIn(2);
  options.zero_output_for_mask = random->OneIn(3);
  options.keep = true;
  const int64_t units = shape.units, columns = c.gates() * units;
  // Weights of a size that keeps the states of any activation finite.
  const double size = 0.5 / std::sqrt(static_cast<double>(units));
  c.inputs = random->Normal(shape.batch * shape.timesteps * shape.features, 1);
  c.kernel =
      random->Normal(shape.features * columns,
                     0.5 / std::sqrt(static_cast<double>(shape.features)));
  c.recurrent_kernel = random->Normal(units * columns, size);
  if (!random->OneIn(3)) c.bias = random->Normal(columns, 0.3);
  if (cell == RnnCell::kGru && options.reset_after && !c.bias.empty())
    c.recurrent_bias = random->Normal(columns, 0.3);
  if (!random->OneIn(3)) c.initial_h = random->Normal(shape.batch * units, 0.5);
  if (cell == RnnCell::kLstm && !random->OneIn(3))
    c.initial_c = random->Normal(shape.batch * units, 0.5);
  DrawMask(random, &c);
  const int many = c.gates();
  if (random->OneIn(3)) {
    c.input_dropouts = random->OneIn(2) ? many : 1;
    c.input_dropout =
        DropoutMask(random, c.input_dropouts * shape.batch * shape.features);
  }
  if (random->OneIn(3)) {
    c.recurrent_dropouts = random->OneIn(2) ? many : 1;
    c.recurrent_dropout =
        DropoutMask(random, c.recurrent_dropouts * shape.batch * units);
  }
  const int64_t steps = options.return_sequences ? shape.timesteps : 1;
  if (!random->OneIn(6))
    c.grad_outputs = random->Normal(shape.batch * steps * units, 1);
  if (random->OneIn(2) || c.grad_outputs.empty())
    c.grad_last_h = random->Normal(shape.batch * units, 1);
  if (cell == RnnCell::kLstm && random->OneIn(2))
    c.grad_last_c = random->Normal(shape.batch * units, 1);
  return c;
}

RnnCallInMemory::RnnCallInMemory(const RnnCase& c, RnnDType dtype, Guard guard,
                                 bool strided)
    : c_(c), dtype_(dtype), guard_(guard) {
  RnnOperands& operands = forward_.operands;
  PutInputs(strided);
  operands.kernel = Put(c.kernel);
  operands.recurrent_kernel = Put(c.recurrent_kernel);
  operands.bias = Put(c.bias);
  operands.recurrent_bias = Put(c.recurrent_bias);
  operands.initial_h = Put(c.initial_h);
  operands.initial_c = Put(c.initial_c);
  operands.mask = c.mask.empty() ? nullptr : c.mask.data();
  operands.lengths = c.lengths.empty() ? nullptr : c.lengths.data();
  operands.input_dropout = Put(c.input_dropout);
  operands.recurrent_dropout = Put(c.recurrent_dropout);
  operands.input_dropouts = c.input_dropouts;
  operands.recurrent_dropouts = c.recurrent_dropouts;
  forward_.cell = c.cell;
  forward_.dtype = dtype;
  forward_.shape = c.shape;
  forward_.options = c.options;
  const int64_t steps = c.options.return_sequences ? c.shape.timesteps : 1;
  const size_t states = Size(c.shape.batch * c.shape.units);
  forward_.outputs = Result("outputs", states * Size(steps));
  forward_.last_h = Result("last_h", states);
  if (c.cell == RnnCell::kLstm) forward_.last_c = Result("last_c", states);
  const size_t real = dtype == RnnDType::kFloat64 ? 8 : 4;
  const int64_t kept = RnnKeptElements(c.cell, dtype, c.shape, c.options);
  results_["kept"] =
      std::make_unique<Bytes>(kept * static_cast<int64_t>(real), guard_);
  forward_.kept = results_["kept"]->get();

  backward_.cell = c.cell;
  backward_.dtype = dtype;
  backward_.shape = c.shape;
  backward_.options = c.options;
  backward_.operands = operands;
  backward_.outputs = forward_.outputs;
  backward_.kept = forward_.kept;
  backward_.grad_outputs = Put(c.grad_outputs);
  backward_.grad_last_h = Put(c.grad_last_h);
  backward_.grad_last_c = Put(c.grad_last_c);
  backward_.grad_inputs = Result("grad_inputs", c.inputs.size());
  backward_.grad_kernel = Result("grad_kernel", c.kernel.size());
  backward_.grad_recurrent_kernel =
      Result("grad_recurrent_kernel", c.recurrent_kernel.size());
  if (!c.bias.empty()) backward_.grad_bias = Result("grad_bias", c.bias.size());
  if (!c.recurrent_bias.empty())
    backward_.grad_recurrent_bias =
        Result("grad_recurrent_bias", c.recurrent_bias.size());
  if (!c.initial_h.empty())
    backward_.grad_initial_h = Result("grad_initial_h", states);
  if (!c.initial_c.empty())
    backward_.grad_initial_c = Result("grad_initial_c", states);
}

const void* RnnCallInMemory::Put(const Numbers& numbers) {
  if (numbers.empty()) return nullptr;
  arrays_.push_back(std::make_unique<Bytes>(
      static_cast<int64_t>(numbers.size() * ElementSize(dtype_)), guard_));
  Bytes& bytes = *arrays_.back();
  for (size_t i = 0; i < numbers.size(); ++i)
    StoreElement(numbers[i], dtype_, bytes.get(), i);
  bytes.Seal();
  return bytes.get();
}

// Strided: time-major, with a gap behind each row.
void RnnCallInMemory::PutInputs(bool strided) {
  const RnnShape& s = c_.shape;
  RnnOperands& operands = forward_.operands;
  if (!strided) {
    operands.inputs = Put(c_.inputs);
    operands.input_batch_stride = s.timesteps * s.features;
    operands.input_time_stride = s.features;
    return;
  }
  const int64_t row = s.features + 3;
  Numbers numbers(Size(s.batch * s.timesteps * row),
                  std::numeric_limits<double>::quiet_NaN());
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t t = 0; t < s.timesteps; ++t)
      for (int64_t f = 0; f < s.features; ++f)
        numbers[Size((t * s.batch + b) * row + f)] =
            c_.inputs[Size((b * s.timesteps + t) * s.features + f)];
  operands.inputs = Put(numbers);
  operands.input_batch_stride = row;
  operands.input_time_stride = s.batch * row;
}

void* RnnCallInMemory::Result(const char* name, size_t count) {
  results_[name] = std::make_unique<Bytes>(
      static_cast<int64_t>(count * ElementSize(dtype_)), guard_);
  return results_[name]->get();
}

std::string RnnCallInMemory::Text(int threads) const {
  const RnnShape& s = c_.shape;
  const RnnOptions& o = c_.options;
  char text[400];
  std::snprintf(
      text, sizeof text,
      "cell %d, dtype %d, B %lld T %lld F %lld U %lld, activations %d %d, "
      "reset_after %d reverse %d sequences %d zero %d, mask %d lengths %d, "
      "dropouts %d %d (%d %d), bias %d, %d threads",
      static_cast<int>(c_.cell), static_cast<int>(dtype_),
      static_cast<long long>(s.batch), static_cast<long long>(s.timesteps),
      static_cast<long long>(s.features), static_cast<long long>(s.units),
      static_cast<int>(o.activation), static_cast<int>(o.recurrent_activation),
      o.reset_after, o.reverse, o.return_sequences, o.zero_output_for_mask,
      !c_.mask.empty(), !c_.lengths.empty(), !c_.input_dropout.empty(),
      !c_.recurrent_dropout.empty(), c_.input_dropouts, c_.recurrent_dropouts,
      !c_.bias.empty(), threads);
  return text;
}

void RnnCallInMemory::Compare(const char* name, const Numbers& wanted,
                              int threads) {
  const auto found = results_.find(name);
  if (found == results_.end()) return;
  const Bytes& bytes = *found->second;
  // The terms of the sums are of the order of 1: where they cancel, their
  // rounding remains.
  double largest = 1, worst = 0;
  for (const double x : wanted) largest = std::max(largest, std::fabs(x));
  size_t at = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double error =
        std::fabs(LoadElement(bytes.get(), dtype_, i) - wanted[i]);
    if (!(error <= worst)) worst = error, at = i;
  }
  EXPECT(worst <= Tolerance(dtype_) * largest,
         "%s[%zu]: %g instead of %g (of %g); %s", name, at,
         LoadElement(bytes.get(), dtype_, at), wanted[at], largest,
         Text(threads).c_str());
  std::vector<unsigned char>& first = first_[name];
  if (first.empty())
    first.assign(bytes.get(), bytes.get() + bytes.bytes());
  else
    EXPECT(std::memcmp(first.data(), bytes.get(), bytes.bytes()) == 0,
           "%s: other bits; %s", name, Text(threads).c_str());
}

void RnnCallInMemory::Check(const RnnResults& wanted, int threads) {
  for (auto& [name, bytes] : results_)
    if (bytes->bytes()) std::memset(bytes->get(), 0xFF, bytes->bytes());
  CHECK(RnnForward(forward_, threads), "no memory");
  CHECK(RnnBackward(backward_, threads), "no memory");
  Compare("outputs", wanted.outputs, threads);
  Compare("last_h", wanted.last_h, threads);
  Compare("last_c", wanted.last_c, threads);
  Compare("grad_inputs", wanted.grad_inputs, threads);
  Compare("grad_kernel", wanted.grad_kernel, threads);
  Compare("grad_recurrent_kernel", wanted.grad_recurrent_kernel, threads);
  Compare("grad_bias", wanted.grad_bias, threads);
  Compare("grad_recurrent_bias", wanted.grad_recurrent_bias, threads);
  Compare("grad_initial_h", wanted.grad_initial_h, threads);
  Compare("grad_initial_c", wanted.grad_initial_c, threads);
  // Without `keep` the same results.
  RnnForwardArgs inference = forward_;
  inference.options.keep = false;
  inference.kept = nullptr;
  for (const char* name : {"outputs", "last_h", "last_c"})
    if (results_.count(name) && results_[name]->bytes())
      std::memset(results_[name]->get(), 0xFF, results_[name]->bytes());
  CHECK(RnnForward(inference, threads), "no memory");
  Compare("outputs", wanted.outputs, threads);
  Compare("last_h", wanted.last_h, threads);
  Compare("last_c", wanted.last_c, threads);
}

}  // namespace hw3tf
