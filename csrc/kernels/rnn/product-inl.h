// The two matrix products: rows times packed weights, and, for the gradients of
// weights, rows transposed times rows.
//
// The tile is 6 rows x 4 vectors with 32 registers (97 to 99 % of the peak on a
// Zen 4; 4, 5 and 7 rows within 1 %), 3 x 4 with 16 and a fused multiply-add.
// The asm statements stop the compiler from loading a vector of weights once
// for each row: without them 4 x 4 fell to 78 %, 3 x 4 with AVX2 to 52 %.

#pragma once

#include "kernels/rnn/lanes-inl.h"
#include "kernels/vector/products-inl.h"

namespace hw3tf {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRnnTileRows = 6;
#elif defined(__AVX2__)
constexpr int kRnnTileRows = 3;
#else
constexpr int kRnnTileRows = 2;
#endif

#if defined(__SSE2__)
#define HW3TF_IN_REGISTER(vector) __asm__("" : "+v"(vector))
#else
#define HW3TF_IN_REGISTER(vector)
#endif

// How the elements of a product are stored.
enum class Stored {
  kPlainly,
  kInParts,  // in several parts: the loop over them takes registers
  kInPairs,  // two bfloat16 in the place of each float (products-inl.h)
};

// An element of a row for all lanes.
template <Stored kStored, typename Real>
inline VecOf<Real> BroadcastElement(const Real* element) {
  if constexpr (kStored == Stored::kInPairs)
    return BroadcastUnit(element);
  else
    return Broadcast(*element);
}

template <Stored kStored, typename V>
inline V MultiplyAdd(V a, V b, V sum) {
  if constexpr (kStored == Stored::kInPairs)
    return MultiplyAddUnits(a, b, sum);
  else
    return sum + a * b;
}

// Rows, and the packed weights that they are multiplied by.
template <typename Real>
struct Factor {
  const Real* const* rows;  // a pointer for each row
  int64_t row_offset;       // from it to the first element
  const Real* weights;
  int64_t weight_stride;  // from one k to the next
  int64_t depth;
  // The rows are in this many parts, `row_step` elements apart; so are the
  // weights, `weight_step` from the beginning of one part to the next.
  int64_t parts;
  int64_t row_step, weight_step;
};

// acc[r][v] += x[r] * w[v], of which there are R scalars and V vectors. What
// there is less of stays in registers, the other comes one after the other: 3 x
// 4 needs 12 + 3 + 1 of the 16 registers of AVX2.
template <Stored kStored, typename Real, int R, int V>
inline __attribute__((always_inline)) void AccumulateOuter(
    const Real* const (&x)[R], int64_t at, const Real* w,
    VecOf<Real> (&acc)[R][V]) {
  if constexpr (R < V) {
    VecOf<Real> held[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      held[r] = BroadcastElement<kStored>(x[r] + at);
      HW3TF_IN_REGISTER(held[r]);
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      VecOf<Real> vector = Load(w + v * kLanesOf<Real>);
      HW3TF_IN_REGISTER(vector);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        acc[r][v] = MultiplyAdd<kStored>(held[r], vector, acc[r][v]);
    }
  } else {
    VecOf<Real> held[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      held[v] = Load(w + v * kLanesOf<Real>);
      HW3TF_IN_REGISTER(held[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const VecOf<Real> scalar = BroadcastElement<kStored>(x[r] + at);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        acc[r][v] = MultiplyAdd<kStored>(scalar, held[v], acc[r][v]);
    }
  }
}

// acc[r][v] += sum over k of row r [k] * weights[k][v], k ascending.
template <Stored kStored, typename Real, int R, int V>
inline __attribute__((always_inline)) void Accumulate(
    const Factor<Real>& factor, int64_t first_row, VecOf<Real> (&acc)[R][V]) {
  const Real* rows[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
    rows[r] = factor.rows[first_row + r] + factor.row_offset;
  constexpr bool kInParts = kStored == Stored::kInParts;
  const Real* part = factor.weights;
  for (int64_t i = 0; i < (kInParts ? factor.parts : 1); ++i) {
    const Real* weights = part;
#pragma GCC unroll 1
    for (int64_t k = 0; k < factor.depth; ++k) {
      AccumulateOuter<kStored, Real, R, V>(rows, k, weights, acc);
      weights += factor.weight_stride;
    }
    if (!kInParts) return;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) rows[r] += factor.row_step;
    part += factor.weight_step;
  }
}

// Where a product begins and goes: rows of V vectors. What it begins with has a
// stride of 0 if it is a bias.
template <typename Real>
struct Sums {
  const Real* begin;
  int64_t begin_stride;
  Real* end;
  int64_t end_stride;
};

template <Stored kStored, typename Real, int R, int V>
__attribute__((noinline)) void Tile(const Factor<Real>& factor,
                                    const Sums<Real>& sums, int64_t row) {
  constexpr int kLanesHere = kLanesOf<Real>;
  VecOf<Real> acc[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      acc[r][v] =
          Load(sums.begin + (row + r) * sums.begin_stride + v * kLanesHere);
  Accumulate<kStored, Real, R, V>(factor, row, acc);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      Store(sums.end + (row + r) * sums.end_stride + v * kLanesHere, acc[r][v]);
}

template <Stored kStored, typename Real, int V, int R>
void TileOf(int rows, const Factor<Real>& factor, const Sums<Real>& sums,
            int64_t row) {
  if constexpr (R > 1) {
    if (rows < R)
      return TileOf<kStored, Real, V, R - 1>(rows, factor, sums, row);
  }
  Tile<kStored, Real, R, V>(factor, sums, row);
}

// All rows, in tiles of heights as equal as can be: a short last tile would
// wait for its few sums.
template <Stored kStored, int V, typename Real>
void MultiplyAll(const Factor<Real>& factor, int64_t rows,
                 const Sums<Real>& sums) {
  int64_t tiles = (rows + kRnnTileRows - 1) / kRnnTileRows;
  for (int64_t row = 0; tiles > 0; --tiles) {
    const int64_t height = (rows - row + tiles - 1) / tiles;
    TileOf<kStored, Real, V, kRnnTileRows>(static_cast<int>(height), factor,
                                           sums, row);
    row += height;
  }
}

// sums.end = sums.begin + the product, of `vectors` vectors, 1 to 4.
template <Stored kStored = Stored::kPlainly, typename Real>
void Multiply(int vectors, const Factor<Real>& factor, int64_t rows,
              const Sums<Real>& sums) {
  switch (vectors) {
    case 1:
      return MultiplyAll<kStored, 1>(factor, rows, sums);
    case 2:
      return MultiplyAll<kStored, 2>(factor, rows, sums);
    case 3:
      return MultiplyAll<kStored, 3>(factor, rows, sums);
    default:
      return MultiplyAll<kStored, 4>(factor, rows, sums);
  }
}

// to[r][v] += sum over i of rows[i][first + r] * dz[i][v], i ascending.
template <typename Real, int R, int V>
__attribute__((noinline)) void OuterTile(const Real* const* rows, int64_t first,
                                         const Real* dz, int64_t count,
                                         Real* to, int64_t to_stride) {
  constexpr int kLanesHere = kLanesOf<Real>;
  VecOf<Real> acc[R][V] = {};
#pragma GCC unroll 1
  for (int64_t i = 0; i < count; ++i) {
    const Real* x[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) x[r] = rows[i] + r;
    AccumulateOuter<Stored::kPlainly, Real, R, V>(x, first, dz, acc);
    dz += kRnnSlots * kLanesHere;
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      Real* const sum = to + r * to_stride + v * kLanesHere;
      Store(sum, Load(sum) + acc[r][v]);
    }
}

template <typename Real, int V, int R>
void OuterTileOf(int height, const Real* const* rows, int64_t first,
                 const Real* dz, int64_t count, Real* to, int64_t to_stride) {
  if constexpr (R > 1) {
    if (height < R)
      return OuterTileOf<Real, V, R - 1>(height, rows, first, dz, count, to,
                                         to_stride);
  }
  OuterTile<Real, R, V>(rows, first, dz, count, to, to_stride);
}

// The rows [first, last) of a gradient that begins at `to`, V vectors of each.
template <int V, typename Real>
void MultiplyOuter(const Real* const* rows, int64_t first, int64_t last,
                   const Real* dz, int64_t count, Real* to, int64_t to_stride) {
  int64_t tiles = (last - first + kRnnTileRows - 1) / kRnnTileRows;
  for (int64_t row = first; tiles > 0; --tiles) {
    const int64_t height = (last - row + tiles - 1) / tiles;
    OuterTileOf<Real, V, kRnnTileRows>(static_cast<int>(height), rows, row, dz,
                                       count, to + row * to_stride, to_stride);
    row += height;
  }
}

}  // namespace
}  // namespace hw3tf
