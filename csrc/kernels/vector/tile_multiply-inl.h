// The one matrix product of this folder: a register tile of R rows x V vectors.
//
// Attention multiplies seven times (scores and output forward; scores, dP, dV,
// dK and dQ backward). In every one of them one operand can be read a scalar at
// a time and broadcast, the other a vector at a time, so that all seven are
//
//   c[r][lanes] += sum over k of a[r, k] * b[k][lanes]
//
// with either the rows or the depth of `a` contiguous. Nothing is packed for
// the product's sake: `a` is read in place, whatever its stride. The elements
// are units of 32 bits, which products-inl.h multiplies: k counts units.

#pragma once

#include "kernels/vector/prefetch-inl.h"
#include "kernels/vector/products-inl.h"
#include "kernels/vector/simd.h"

namespace hw3tf {
namespace {

// Which axis of the broadcast operand is contiguous.
enum class Contiguous { kAlongDepth, kAlongRows };

// The broadcast operand: element (r, k) is data[r * stride + k] if the depth is
// contiguous, data[r + k * stride] if the rows are.
template <Contiguous kAxis>
struct BroadcastOperand {
  const float* data;
  int64_t stride;

  const float* Row(int64_t r) const {
    return kAxis == Contiguous::kAlongDepth ? data + r * stride : data + r;
  }
};

// The vector operand: row k is `V` vectors at data + k * stride.
struct VectorOperand {
  const float* data;
  int64_t stride;
};

// acc[r][v] += sum over k < depth of a[r, k] * b[k][v], k ascending.
//
// Unrolled by 4 where the depth is contiguous: the offsets become immediates
// (the loop control alone cost 18 % at H = 64).
template <int R, int V, Contiguous kAxis>
inline __attribute__((always_inline)) void MultiplyAdd(
    BroadcastOperand<kAxis> a, VectorOperand b, int64_t depth,
    Vec (&acc)[R][V]) {
  const float* vectors = b.data;
  const auto step =
      [&](const auto& unit_of_row) __attribute__((always_inline)) {
        Vec bv[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) bv[v] = Load(vectors + v * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const Vec unit = BroadcastUnit(unit_of_row(r));
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v)
            acc[r][v] = MultiplyAddUnits(unit, bv[v], acc[r][v]);
        }
        vectors += b.stride;
      };
  if (kAxis == Contiguous::kAlongDepth) {
    const float* rows[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) rows[r] = a.Row(r);
    const auto at = [&](int64_t k) __attribute__((always_inline)) {
      step([&](int r) __attribute__((always_inline)) { return rows[r] + k; });
    };
    int64_t k = 0;
    for (; k + 4 <= depth; k += 4) {
      at(k);
      at(k + 1);
      at(k + 2);
      at(k + 3);
    }
    for (; k < depth; ++k) at(k);
  } else {
    // One pointer, the rows at constant offsets from it: a pointer per row made
    // GCC spill.
    const float* column = a.data;
    for (int64_t k = 0; k < depth; ++k, column += a.stride)
      step([&](int r) __attribute__((always_inline)) { return column + r; });
  }
}

// Calls body.template Run<R>(first_row) for groups of at most kRows rows that
// cover [0, count) and differ by one row at most: 20 rows are 5 + 5 + 5 + 5
// rather than 6 + 6 + 6 + 2, because a short group cannot hide the latency of
// the multiply-add. The choice of R is made twice, not once per group (at H =
// 32 within 1 % of a division and a chain of branches for each).
template <int R, typename Body>
inline __attribute__((always_inline)) void RunGroups(int64_t rows,
                                                     int64_t first, int64_t end,
                                                     const Body& body) {
  if constexpr (R > 1) {
    if (rows < R) {
      RunGroups<R - 1>(rows, first, end, body);
      return;
    }
  }
  for (; first < end; first += R) body.template Run<R>(first);
}

template <typename Body>
inline __attribute__((always_inline)) void ForRowGroups(int64_t count,
                                                        const Body& body) {
  const int64_t groups = (count + kRows - 1) / kRows;
  if (groups == 0) return;
  const int64_t rows = count / groups, larger = count % groups * (rows + 1);
  if (larger > 0) RunGroups<kRows>(rows + 1, 0, larger, body);
  RunGroups<kRows>(rows, larger, count, body);
}

// The same for groups that begin at a whole unit, if a unit holds two steps of
// the depth: an odd row is a group of its own, the last.
template <int R, typename Body>
inline __attribute__((always_inline)) void RunEvenGroups(int64_t rows,
                                                         int64_t first,
                                                         int64_t end,
                                                         const Body& body) {
  if constexpr (R > 2) {
    if (rows < R) {
      RunEvenGroups<R - 2>(rows, first, end, body);
      return;
    }
  }
  for (; first < end; first += R) body.template Run<R>(first);
}

template <typename Body>
inline __attribute__((always_inline)) void ForUnitGroups(int64_t count,
                                                         const Body& body) {
  if constexpr (kPairs) {
    const int64_t pairs = count / 2, groups = (2 * pairs + kRows - 1) / kRows;
    if (groups > 0) {
      const int64_t each = pairs / groups;
      const int64_t larger = pairs % groups * (each + 1);
      if (larger > 0) RunEvenGroups<kRows>(2 * (each + 1), 0, 2 * larger, body);
      RunEvenGroups<kRows>(2 * each, 2 * larger, 2 * pairs, body);
    }
    if (count % 2) body.template Run<1>(count - 1);
  } else {
    ForRowGroups(count, body);
  }
}

// c[r][0..width) = or += sum over k of a[r, k] * b[k][0..width), for r < rows;
// width is a multiple of kLanes, c and b are padded to it.
template <Contiguous kAxis>
struct MatrixProduct {
  BroadcastOperand<kAxis> a;
  VectorOperand b;
  int64_t depth;
  float* c;
  int64_t c_stride;
  int64_t width;
  bool accumulate;
  Prefetcher* prefetcher;  // takes a step per group of rows

  template <int R>
  void Run(int64_t row) const {
    prefetcher->Step();
    int64_t column = 0;
    for (; column + 2 * kLanes <= width; column += 2 * kLanes)
      Columns<R, 2>(row, column);
    if (column < width) Columns<R, 1>(row, column);
  }

  template <int R, int V>
  inline __attribute__((always_inline)) void Columns(int64_t row,
                                                     int64_t column) const {
    float* out = c + row * c_stride + column;
    // From 0 even when accumulating: a sum of tile sums rounds less than one
    // long sum.
    Vec acc[R][V] = {};
    MultiplyAdd<R, V, kAxis>({a.Row(row), a.stride},
                             {b.data + column, b.stride}, depth, acc);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        float* at = out + r * c_stride + v * kLanes;
        Store(at, accumulate ? Load(at) + acc[r][v] : acc[r][v]);
      }
  }
};

template <Contiguous kAxis>
inline void Multiply(const MatrixProduct<kAxis>& product, int64_t rows) {
  ForRowGroups(rows, product);
}

}  // namespace
}  // namespace hw3tf
