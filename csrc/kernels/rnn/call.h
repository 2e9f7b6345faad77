// One call of the RNN kernels, as forward.cc and backward.cc begin it: batch
// entries sorted by their steps, operands in Real, weights packed.

#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "kernels/rnn/kernel_table.h"
#include "kernels/runtime/parallel.h"

namespace hw3tf {

// Asks for large pages for memory that is written for the first time: of 48 MiB
// the page faults cost 22 ms without, 3.5 ms with them, beside 40 ms of a
// forward pass. Memory of less than some large pages is left alone.
void AdviseLargePages(void* data, int64_t bytes);

// An array of `size` elements, aligned to a line of the cache; what it holds is
// not defined. Throws std::bad_alloc.
template <typename T>
class Memory {
 public:
  explicit Memory(int64_t size = 0) { Resize(size); }

  void Resize(int64_t size) {
    size_ = size;
    if (size == 0) return data_.reset();
    const size_t bytes = static_cast<size_t>(size) * sizeof(T);
    data_.reset(static_cast<T*>(::operator new(bytes, kAlignment)));
    AdviseLargePages(data_.get(), static_cast<int64_t>(bytes));
#if defined(HW3TF_POISON)
    std::memset(static_cast<void*>(data_.get()), 0xFF, bytes);
#endif
  }
  void Zero() {
    std::memset(static_cast<void*>(data_.get()), 0,
                static_cast<size_t>(size_) * sizeof(T));
  }
  T* get() const { return data_.get(); }
  T& operator[](int64_t index) const { return data_.get()[index]; }
  int64_t size() const { return size_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(T* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t size_ = 0;
};

// The batch entries that have steps, sorted by their number.
class RnnRows {
 public:
  RnnRows(const RnnShape& shape, const RnnOptions& options,
          const RnnOperands& operands);

  bool masked() const { return masked_; }
  int64_t rows() const { return static_cast<int64_t>(order_.size()); }
  int64_t longest() const { return static_cast<int64_t>(active_.size()); }
  const int32_t* order() const { return order_.data(); }
  const int32_t* steps() const { return steps_.data(); }
  const int32_t* active() const { return active_.data(); }
  const int32_t* positions() const {
    return positions_.empty() ? nullptr : positions_.data();
  }
  // The row of a batch entry; -1: it has no step.
  int64_t RowOf(int64_t entry) const {
    return row_of_[static_cast<size_t>(entry)];
  }
  // Whether the output at a position is that of a step.
  bool IsStep(int64_t entry, int64_t position) const {
    if (!masked_) return true;
    return valid_[static_cast<size_t>(entry * timesteps_ + position)] != 0;
  }

 private:
  int64_t timesteps_;
  bool masked_;
  std::vector<uint8_t> valid_;  // (B, T), by position
  std::vector<int32_t> order_, steps_, active_, positions_, row_of_;
};

// Elements of T as Real: in place where they are, otherwise a copy.
template <typename Real>
class Widened {
 public:
  // nullptr gives nullptr.
  void Set(const void* data, int64_t size, RnnDType dtype, int threads);
  // The inputs, of any strides, as a contiguous copy.
  void SetInputs(const RnnOperands& operands, const RnnShape& shape,
                 RnnDType dtype, int threads);
  const Real* get() const { return data_; }

 private:
  Memory<Real> copy_;
  const Real* data_ = nullptr;
};

bool IsHalf(RnnDType dtype);

const RnnKernels& ChosenRnnKernels();

// `size` Reals to elements of T.
template <typename Real>
void StoreAs(const Real* from, RnnDType dtype, int64_t size, void* to,
             int64_t at) {
  if (size <= 0) return;
  if constexpr (sizeof(Real) == sizeof(float)) {
    if (IsHalf(dtype))
      return ChosenRnnKernels().conversions.narrow(
          from, dtype, size, static_cast<uint16_t*>(to) + at);
  }
  Real* const begin = static_cast<Real*>(to) + at;
  if (begin != from)
    std::memmove(begin, from, static_cast<size_t>(size) * sizeof(Real));
}

// How `kept` is divided.
struct RnnKept {
  int64_t gates, c, h;  // elements
};
RnnKept RnnKeptParts(RnnCell cell, RnnDType dtype, const RnnShape& shape,
                     const RnnOptions& options);

// Whether x K is a product of pairs of bfloat16, which takes half the time of
// one of floats and has the same terms. h R is not: h would have to be rounded,
// and the error against float64 of some calls was five times as large.
bool MultipliesPairs(RnnDType dtype, const RnnOperands& operands);

// `pairs`: those of the forward pass that multiply pairs of bfloat16.
template <typename Real>
const RnnKernelsOf<Real>& ChosenRnnKernelsOf(bool pairs);

// Threads that are worth waking for so many multiplications.
int RnnThreads(int requested, double multiplications);

// Whether the threads share the units of all rows, and not the rows: with few
// rows, or with weights that only the last cache holds, of which each thread
// then reads its own part (LSTM 32,200,256,512 on two threads: training 226 ms
// instead of 277).
bool FewRows(int64_t rows, int threads, int64_t weight_bytes);

// The plan of both passes, and the memory behind it.
template <typename Real>
class RnnCall {
 public:
  // `pairs`: whether x K is a product of pairs of bfloat16.
  RnnCall(RnnCell cell, RnnDType dtype, const RnnShape& shape,
          const RnnOptions& options, const RnnOperands& operands, bool pairs,
          int num_threads);

  const RnnKernelsOf<Real>& kernels;
  const RnnRows rows;
  RnnPlan<Real> plan{};
  int threads;

  // Of K and R.
  int64_t weight_bytes() const;
  // Where gates, c and h are kept, and h where it is not.
  void PlaceKept(void* kept);
  // K, R and b in panels of units.
  void PackForward();
  // K^T and R^T in panels of columns.
  void PackBackward(bool inputs_wanted);
  // Packed gradients as they belong into the caller's arrays.
  void Unpack(const Real* packed, bool recurrent, void* to) const;
  void UnpackBias(const Real* packed, bool recurrent, void* to) const;

  const RnnOperands& operands;
  RnnDType dtype;
  const bool pairs;
  const Real* initial_c = nullptr;  // (B, U), in the caller's order

 private:
  void PackWeights(const Real* weights, bool recurrent, Real* to) const;
  void PackPairs(Real* to) const;
  template <typename UnitOf>
  void PackPanels(bool recurrent, int64_t depth, Real* to,
                  const UnitOf& unit_of) const;
  void PackColumns(const Real* weights, bool recurrent, Real* to) const;
  void PackBias();
  void PlaceInitialC();

  Widened<Real> inputs_, kernel_, recurrent_kernel_, bias_, recurrent_bias_,
      initial_h_, initial_c_, input_dropout_, recurrent_dropout_;
  Memory<Real> zeros_, packed_kernel_, packed_recurrent_, packed_bias_,
      padded_c_;
};

extern template class Widened<float>;
extern template class Widened<double>;
extern template class RnnCall<float>;
extern template class RnnCall<double>;

}  // namespace hw3tf
