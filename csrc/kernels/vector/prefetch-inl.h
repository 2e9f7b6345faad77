// Prefetching of rows of memory, some time before they are read or written.
//
// The rows of one head are far apart, so that each is a miss that the processor
// does not foresee; a short problem is over before its inputs have arrived.
// Prefetches cost nothing if they are spread, a few at a time, between the
// products before them; a burst would stall like the misses themselves.

#pragma once

#include "kernels/attention/attention.h"
#include "kernels/vector/element.h"
#include "kernels/vector/simd.h"

namespace hw3tf {
namespace {

// The row that is read or written `kRowsAhead` rows after this one, where rows
// are only copied or summed: half of the time was spent waiting for them (32
// sequences of 512 positions, of which 16 take part, one thread of a Zen 3).
constexpr int64_t kRowsAhead = 16;

inline void PrefetchAhead(const void* row, int64_t stride, int64_t bytes) {
  const char* ahead = static_cast<const char*>(row) + kRowsAhead * stride;
  for (int64_t at = 0; at < bytes; at += 64)
    __builtin_prefetch(ahead + at, /*rw=*/0, /*locality=*/2);
}

inline void PrefetchAhead(void* row, int64_t stride, int64_t bytes) {
  const char* ahead = static_cast<const char*>(row) + kRowsAhead * stride;
  for (int64_t at = 0; at < bytes; at += 64)
    __builtin_prefetch(ahead + at, /*rw=*/1, /*locality=*/3);
}

class Prefetcher {
 public:
  // Forgets what is left.
  void Clear() { size_ = current_ = 0, total_ = 0; }

  // Rows [first, first + count) of `bytes` bytes, `stride` bytes apart.
  void Add(const void* rows, int64_t stride, int64_t count, int64_t bytes,
           bool to_write) {
    if (count <= 0 || size_ == kMaxRanges) return;
    constexpr int64_t kLine = 64;
    ranges_[size_++] = {static_cast<const char*>(rows), stride, count,
                        (bytes + kLine - 1) / kLine * kLine, to_write};
    total_ += count;
  }

  // Everything that was added is to be prefetched within so many steps.
  void SpreadOver(int64_t steps) {
    rate_ = steps > 0 ? (total_ + steps - 1) / steps : total_;
  }

  inline void Step() {
    if (current_ < size_) Ask(rate_);
  }

 private:
  struct Range {
    const char* row;
    int64_t stride;
    int64_t count;
    int64_t bytes;
    bool to_write;
  };
  static constexpr int kMaxRanges = 16;

  __attribute__((noinline)) void Ask(int64_t rows) {
    while (rows > 0 && current_ < size_) {
      Range& range = ranges_[current_];
      const int64_t now = range.count < rows ? range.count : rows;
      for (int64_t i = 0; i < now; ++i, range.row += range.stride)
        for (int64_t at = 0; at < range.bytes; at += 64) {
          if (range.to_write)
            __builtin_prefetch(range.row + at, /*rw=*/1, /*locality=*/3);
          else
            __builtin_prefetch(range.row + at, /*rw=*/0, /*locality=*/2);
        }
      rows -= now;
      range.count -= now;
      if (range.count == 0) ++current_;
    }
  }

  Range ranges_[kMaxRanges];
  int size_ = 0, current_ = 0;
  int64_t total_ = 0, rate_ = 0;
};

}  // namespace
}  // namespace hw3tf
