#include "tests/recurrence/case.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

namespace hw3tf {
namespace {

using Bytes = GuardedArray<unsigned char>;

int64_t SizeOf(IntDType dtype) {
  switch (dtype) {
    case IntDType::kInt16:
      return 2;
    case IntDType::kInt32:
      return 4;
    case IntDType::kInt64:
      return 8;
    default:
      return 1;
  }
}

int64_t Lowest(IntDType dtype) {
  if (dtype == IntDType::kBool || dtype == IntDType::kUint8) return 0;
  return -1 -
         static_cast<int64_t>((uint64_t{1} << (8 * SizeOf(dtype) - 1)) - 1);
}

int64_t Highest(IntDType dtype) {
  if (dtype == IntDType::kBool) return 1;
  if (dtype == IntDType::kUint8) return 255;
  return static_cast<int64_t>((uint64_t{1} << (8 * SizeOf(dtype) - 1)) - 1);
}

void Put(const Bytes& bytes, IntDType dtype, int64_t i, int64_t value) {
  std::memcpy(bytes.get() + i * SizeOf(dtype), &value,
              static_cast<size_t>(SizeOf(dtype)));
}

int64_t Get(const Bytes& bytes, IntDType dtype, int64_t i) {
  const unsigned char* at = bytes.get() + i * SizeOf(dtype);
  int32_t narrow;
  int64_t wide;
  if (dtype == IntDType::kInt32) {
    std::memcpy(&narrow, at, sizeof narrow);
    return narrow;
  }
  std::memcpy(&wide, at, sizeof wide);
  return wide;
}

constexpr int64_t kSizes[] = {1,         1,         3,         100,      40000,
                              INT32_MAX, 1LL << 40, 1LL << 62, INT64_MAX};

IntDType DTypeAt(int64_t i) { return static_cast<IntDType>(i); }

void ChooseOptions(Random* random, RecurrenceCase* c) {
  RecurrenceOptions& options = c->args.options;
  const IntDType state = c->args.state_dtype;
  options.activation =
      static_cast<Activation>(random->OneIn(2) ? 0 : random->Below(4));
  const int64_t size = random->Of(kSizes);
  options.clip_low = random->Number(state, size);
  options.clip_high = random->Number(state, size);
  if (options.clip_low > options.clip_high)
    std::swap(options.clip_low, options.clip_high);
  options.overflow = static_cast<Overflow>(random->Below(3));
  options.reverse = random->OneIn(2);
  options.return_sequences = random->OneIn(2);
  if (random->OneIn(6))
    options.fractional_bits =
        static_cast<int>(random->Below(8 * SizeOf(state)));
}

}  // namespace

int64_t Random::Number(IntDType dtype, int64_t size) {
  const int64_t low = std::max(Lowest(dtype), -size);
  const int64_t high = std::min(Highest(dtype), size);
  if (OneIn(16)) return OneIn(2) ? low : high;
  const auto span = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  if (span == UINT64_MAX) return static_cast<int64_t>(engine_());
  return static_cast<int64_t>(static_cast<uint64_t>(low) +
                              engine_() % (span + 1));
}

std::vector<int64_t> Random::Numbers(int64_t count, IntDType dtype,
                                     int64_t size) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < count; ++i) numbers.push_back(Number(dtype, size));
  return numbers;
}

RecurrenceCase MakeCase(Random* random, const RecurrenceShape& shape) {
  RecurrenceCase c{};
  const bool wide = random->OneIn(2);
  c.args.shape = shape;
  c.args.state_dtype = wide ? IntDType::kInt64 : IntDType::kInt32;
  c.args.weight_dtype =
      !wide && random->OneIn(2) ? IntDType::kInt8 : c.args.state_dtype;
  c.args.input_dtype = DTypeAt(random->Below(wide ? 6 : 5));
  ChooseOptions(random, &c);
  const auto [batch, timesteps, features, units] = shape;
  c.inputs = random->Numbers(batch * timesteps * features, c.args.input_dtype,
                             random->Of(kSizes));
  // One input that stands out: bounds must see every one.
  if (random->OneIn(4) && !c.inputs.empty()) {
    const auto at = static_cast<size_t>(
        random->Below(static_cast<int64_t>(c.inputs.size())));
    const int64_t kept = c.inputs[at];
    c.inputs.assign(c.inputs.size(), 0);
    c.inputs[at] = kept;
  }
  // Those that fit int16, and those that just do not, go different ways.
  constexpr int64_t kWeights[] = {1,   1,    1,         2,         2,
                                  127, 1000, INT16_MAX, 1LL << 15, INT64_MAX};
  c.kernel = random->Numbers(features * units, c.args.weight_dtype,
                             random->Of(kWeights));
  c.recurrent_kernel =
      random->Numbers(units * units, c.args.weight_dtype, random->Of(kWeights));
  if (random->OneIn(3))
    for (int64_t i = 0; i < units * units; ++i)
      if (i % (units + 1) != 0) c.recurrent_kernel[static_cast<size_t>(i)] = 0;
  if (random->OneIn(2))
    c.bias = random->Numbers(units, c.args.state_dtype, random->Of(kSizes));
  if (random->OneIn(2))
    c.initial_state =
        random->Numbers(batch * units, c.args.state_dtype, random->Of(kSizes));
  for (int64_t i = 0; random->OneIn(4) && i < batch * timesteps; ++i)
    c.mask.push_back(0);
  if (!c.mask.empty()) {
    c.mask.resize(static_cast<size_t>(batch * timesteps));
    for (uint8_t& m : c.mask) m = random->OneIn(3) ? 0 : 1;
  }
  return c;
}

RecurrenceCall::RecurrenceCall(const RecurrenceCase& c, Guard guard,
                               InputLayout layout)
    : c_(c),
      guard_(guard),
      output_((c.args.options.return_sequences ? c.args.shape.timesteps : 1) *
                  c.args.shape.batch * c.args.shape.units *
                  SizeOf(c.args.state_dtype),
              guard),
      args_(c.args) {
  args_.kernel = Array(c.kernel, args_.weight_dtype);
  args_.recurrent_kernel = Array(c.recurrent_kernel, args_.weight_dtype);
  args_.bias = Array(c.bias, args_.state_dtype);
  args_.initial_state = Array(c.initial_state, args_.state_dtype);
  const std::vector<int64_t> mask(c.mask.begin(), c.mask.end());
  args_.mask = static_cast<const uint8_t*>(Array(mask, IntDType::kBool));
  PutInputs(layout);
  args_.output = output_.get();
}

void RecurrenceCall::Check(int threads) {
  std::memset(output_.get(), 0xFF, output_.bytes());
  Compare(IntegerRecurrence(args_, threads), threads);
}

void RecurrenceCall::Compare(const RecurrenceResult& got, int threads) const {
  std::vector<int64_t> want;
  const RecurrenceResult expected = RecurrenceFormula(c_, &want);
  const RecurrenceShape& s = args_.shape;
  char what[200];
  std::snprintf(
      what, sizeof what,
      "B %lld T %lld F %lld units %lld types %d %d %d activation "
      "%d overflow %d reverse %d bits %d threads %d",
      static_cast<long long>(s.batch), static_cast<long long>(s.timesteps),
      static_cast<long long>(s.features), static_cast<long long>(s.units),
      static_cast<int>(args_.input_dtype), static_cast<int>(args_.weight_dtype),
      static_cast<int>(args_.state_dtype),
      static_cast<int>(args_.options.activation),
      static_cast<int>(args_.options.overflow), args_.options.reverse,
      args_.options.fractional_bits, threads);
  EXPECT(got.status == expected.status, "%s", what);
  EXPECT(got.batch_entry == expected.batch_entry &&
             got.timestep == expected.timestep,
         "%s: at %lld %lld, not %lld %lld", what,
         static_cast<long long>(got.batch_entry),
         static_cast<long long>(got.timestep),
         static_cast<long long>(expected.batch_entry),
         static_cast<long long>(expected.timestep));
  for (size_t i = 0; got.status == expected.status && i < want.size(); ++i) {
    const int64_t value =
        expected.status == RecurrenceStatus::kDone
            ? Get(output_, args_.state_dtype, static_cast<int64_t>(i))
            : want[i];
    EXPECT(value == want[i], "%s: state %zu is %lld, not %lld", what, i,
           static_cast<long long>(value), static_cast<long long>(want[i]));
    if (value != want[i]) return;
  }
}

const void* RecurrenceCall::Array(const std::vector<int64_t>& values,
                                  IntDType dtype) {
  if (values.empty()) return nullptr;
  const auto count = static_cast<int64_t>(values.size());
  arrays_.push_back(std::make_unique<Bytes>(count * SizeOf(dtype), guard_));
  for (int64_t i = 0; i < count; ++i)
    Put(*arrays_.back(), dtype, i, values[static_cast<size_t>(i)]);
  arrays_.back()->Seal();
  return arrays_.back()->get();
}

void RecurrenceCall::PutInputs(InputLayout layout) {
  const auto [batch, timesteps, features, units] = args_.shape;
  const int64_t step = features + (layout == InputLayout::kGaps ? 3 : 0);
  args_.input_time_stride =
      layout == InputLayout::kTimeBackwards ? -step : step;
  args_.input_batch_stride = timesteps * step;
  const int64_t count =
      batch * timesteps == 0 ? 0 : (batch * timesteps - 1) * step + features;
  const int64_t first = layout == InputLayout::kTimeBackwards && count
                            ? (timesteps - 1) * step
                            : 0;
  const int64_t size = SizeOf(args_.input_dtype);
  arrays_.push_back(std::make_unique<Bytes>(count * size, guard_));
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t t = 0; t < timesteps; ++t)
      for (int64_t i = 0; i < features; ++i)
        Put(*arrays_.back(), args_.input_dtype,
            first + b * args_.input_batch_stride + t * args_.input_time_stride +
                i,
            c_.inputs[static_cast<size_t>((b * timesteps + t) * features + i)]);
  arrays_.back()->Seal();
  args_.inputs = arrays_.back()->get() + first * size;
}

}  // namespace hw3tf
