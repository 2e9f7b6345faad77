// Arrays of any of the four types in guarded memory, read and written as
// double.

#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention/attention.h"
#include "tests/attention/case.h"
#include "tests/check.h"

namespace hw3tf {

int64_t ElementSize(DType dtype);
// double for float64, else float.
DType RealType(DType dtype);
double Rounded(double x, DType dtype);

// A flat array.
class Elements {
 public:
  Elements(DType dtype, int64_t count, Guard guard)
      : dtype_(dtype),
        count_(count),
        bytes_(count * ElementSize(dtype), guard) {}

  double Get(int64_t i) const;
  void Set(int64_t i, double x) const;
  void CopyFrom(const Elements& other) const;

  int64_t count() const { return count_; }
  void* get() const { return bytes_.get(); }
  const GuardedArray<unsigned char>& memory() const { return bytes_; }

 private:
  DType dtype_;
  int64_t count_;
  GuardedArray<unsigned char> bytes_;
};

// The rows of an (B, length, heads, size) array; a packed one is a single
// sequence of this class.
struct RowsShape {
  int64_t batch;
  int64_t length;
  int64_t heads;
  int64_t size;
  bool one_batch = false;  // all batch entries are the same elements
};

class Rows {
 public:
  Rows(DType dtype, const RowsShape& shape, Layout layout, Guard guard);

  // row = b * length + position.
  double Get(int64_t row, int64_t head, int64_t i) const;
  void Set(int64_t row, int64_t head, int64_t i, double x) const;
  void CopyFrom(const Rows& other) const;

  // Element (row, head, i) at (row * heads + head) * size + i.
  std::vector<double> Values() const;
  void SetValues(const std::vector<double>& values) const;

  const RowsShape& shape() const { return shape_; }
  ConstArray ReadArray() const { return {First(), strides_}; }
  MutableArray WriteArray() const { return {First(), strides_}; }
  const GuardedArray<unsigned char>& memory() const {
    return elements_.memory();
  }

 private:
  void* First() const;
  int64_t Offset(int64_t row, int64_t head) const;

  RowsShape shape_;
  DType dtype_;
  Strides strides_;
  int64_t first_;  // the offset of (0, 0, 0, 0)
  Elements elements_;
};

}  // namespace hw3tf
