#include "tests/attention/arrays.h"

#include "kernels/vector/element.h"

namespace hw3tf {
namespace {

constexpr int64_t kPad = 3;

Strides OwnStrides(const RowsShape& s, Layout layout) {
  switch (layout) {
    case Layout::kHeadsFirst:
      return {s.heads * s.length * s.size, s.size, s.length * s.size};
    case Layout::kPadded: {
      const int64_t head = s.size + kPad;
      const int64_t length = s.heads * head + kPad;
      return {s.length * length + kPad, length, head};
    }
    case Layout::kReversed:
      return {s.length * s.heads * s.size, -s.heads * s.size, s.size};
    default:
      return {s.length * s.heads * s.size, s.heads * s.size, s.size};
  }
}

Strides StridesOf(const RowsShape& s, Layout layout) {
  Strides strides = OwnStrides(s, layout);
  if (s.one_batch) strides.batch = 0;
  return strides;
}

// The offset of the first position.
int64_t FirstOf(const RowsShape& s, const Strides& strides) {
  return strides.length < 0 && s.length > 0 ? -(s.length - 1) * strides.length
                                            : 0;
}

// Up to the last element that is used.
int64_t CountOf(const RowsShape& s, const Strides& strides) {
  const int64_t batch = s.one_batch ? 1 : s.batch;
  if (batch * s.length * s.heads == 0) return 0;
  const int64_t length = strides.length < 0 ? 0 : strides.length;
  return FirstOf(s, strides) + (batch - 1) * strides.batch +
         (s.length - 1) * length + (s.heads - 1) * strides.head + s.size;
}

double GetElement(DType dtype, const void* data, int64_t i) {
  switch (dtype) {
    case DType::kFloat32:
      return Load(static_cast<const float*>(data)[i]);
    case DType::kBfloat16:
      return Load(static_cast<const Bfloat16*>(data)[i]);
    case DType::kFloat16:
      return Load(static_cast<const Float16*>(data)[i]);
    case DType::kFloat64:
      return static_cast<const double*>(data)[i];
  }
  return 0.0;
}

void SetElement(DType dtype, void* data, int64_t i, double x) {
  switch (dtype) {
    case DType::kFloat32:
      return Store(x, static_cast<float*>(data) + i);
    case DType::kBfloat16:
      return Store(x, static_cast<Bfloat16*>(data) + i);
    case DType::kFloat16:
      return Store(x, static_cast<Float16*>(data) + i);
    case DType::kFloat64:
      return Store(x, static_cast<double*>(data) + i);
  }
}

}  // namespace

int64_t ElementSize(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return 4;
    case DType::kFloat64:
      return 8;
    default:
      return 2;
  }
}

DType RealType(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

double Rounded(double x, DType dtype) {
  double memory;
  SetElement(dtype, &memory, 0, x);
  return GetElement(dtype, &memory, 0);
}

double Elements::Get(int64_t i) const {
  CHECK(i >= 0 && i < count_, "a wrong index in the test");
  return GetElement(dtype_, get(), i);
}

void Elements::Set(int64_t i, double x) const {
  CHECK(i >= 0 && i < count_, "a wrong index in the test");
  SetElement(dtype_, get(), i, x);
}

void Elements::CopyFrom(const Elements& other) const {
  for (int64_t i = 0; i < count_; ++i) Set(i, other.Get(i));
}

Rows::Rows(DType dtype, const RowsShape& shape, Layout layout, Guard guard)
    : shape_(shape),
      dtype_(dtype),
      strides_(StridesOf(shape, layout)),
      first_(FirstOf(shape, strides_)),
      elements_(dtype, CountOf(shape, strides_), guard) {}

int64_t Rows::Offset(int64_t row, int64_t head) const {
  return first_ + row / shape_.length * strides_.batch +
         row % shape_.length * strides_.length + head * strides_.head;
}

double Rows::Get(int64_t row, int64_t head, int64_t i) const {
  return elements_.Get(Offset(row, head) + i);
}

void Rows::Set(int64_t row, int64_t head, int64_t i, double x) const {
  elements_.Set(Offset(row, head) + i, x);
}

void Rows::CopyFrom(const Rows& other) const { SetValues(other.Values()); }

std::vector<double> Rows::Values() const {
  std::vector<double> values;
  for (int64_t row = 0; row < shape_.batch * shape_.length; ++row)
    for (int64_t head = 0; head < shape_.heads; ++head)
      for (int64_t i = 0; i < shape_.size; ++i)
        values.push_back(Get(row, head, i));
  return values;
}

void Rows::SetValues(const std::vector<double>& values) const {
  auto value = values.begin();
  for (int64_t row = 0; row < shape_.batch * shape_.length; ++row)
    for (int64_t head = 0; head < shape_.heads; ++head)
      for (int64_t i = 0; i < shape_.size; ++i) Set(row, head, i, *value++);
}

void* Rows::First() const {
  return static_cast<char*>(elements_.get()) + first_ * ElementSize(dtype_);
}

}  // namespace hw3tf
