// The two matrix products: rows times packed weights, and, for the gradients of
// weights, rows transposed times rows.
//
// The tile is 6 rows x 4 vectors with 32 registers (97 to 99 % of the peak on a
// Zen 4; 4, 5 and 7 rows within 1 %), 3 x 4 with 16 and a fused multiply-add.
// The asm statements stop the compiler from loading a vector of weights once
// for each row: without them 4 x 4 fell to 78 %, 3 x 4 with AVX2 to 52 %.

#pragma once

#include "kernels/rnn/lanes-inl.h"

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

// acc[r][kShift + v] += sum over k of row r [k] * weights[k][v], k ascending.
template <int kShift, typename Real, int R, int V, int A>
inline __attribute__((always_inline)) void Accumulate(
    const Factor<Real>& factor, int64_t first_row, VecOf<Real> (&acc)[R][A]) {
  constexpr int kLanesHere = kLanesOf<Real>;
  const Real* rows[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
    rows[r] = factor.rows[first_row + r] + factor.row_offset;
  const Real* part = factor.weights;
  for (int64_t i = 0; i < factor.parts; ++i) {
    const Real* weights = part;
#pragma GCC unroll 1
    for (int64_t k = 0; k < factor.depth; ++k) {
      VecOf<Real> w[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        w[v] = Load(weights + v * kLanesHere);
        HW3TF_IN_REGISTER(w[v]);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const VecOf<Real> x = Broadcast(rows[r][k]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v)
          acc[r][kShift + v] = x * w[v] + acc[r][kShift + v];
      }
      weights += factor.weight_stride;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) rows[r] += factor.row_step;
    part += factor.weight_step;
  }
}

// Where a product begins and goes: rows of A vectors. What it begins with has a
// stride of 0 if it is a bias.
template <typename Real>
struct Sums {
  const Real* begin;
  int64_t begin_stride;
  Real* end;
  int64_t end_stride;
};

// V vectors of weights; A slots; the second factor's begin at slot kShift.
template <typename Real, int R, int V, int A, int kShift>
__attribute__((noinline)) void Tile(const Factor<Real>* factors, int count,
                                    const Sums<Real>& sums, int64_t row) {
  constexpr int kLanesHere = kLanesOf<Real>;
  VecOf<Real> acc[R][A];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int a = 0; a < A; ++a)
      acc[r][a] =
          Load(sums.begin + (row + r) * sums.begin_stride + a * kLanesHere);
  Accumulate<0, Real, R, V, A>(factors[0], row, acc);
  if (count > 1) Accumulate<kShift, Real, R, V, A>(factors[1], row, acc);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int a = 0; a < A; ++a)
      Store(sums.end + (row + r) * sums.end_stride + a * kLanesHere, acc[r][a]);
}

template <typename Real, int V, int A, int kShift, int R>
void TileOf(int rows, const Factor<Real>* factors, int count,
            const Sums<Real>& sums, int64_t row) {
  if constexpr (R > 1) {
    if (rows < R)
      return TileOf<Real, V, A, kShift, R - 1>(rows, factors, count, sums, row);
  }
  Tile<Real, R, V, A, kShift>(factors, count, sums, row);
}

// All rows, in tiles of heights as equal as can be: a short last tile would
// wait for its few sums.
template <int V, int A, int kShift, typename Real>
void Multiply(const Factor<Real>* factors, int count, int64_t rows,
              const Sums<Real>& sums) {
  int64_t tiles = (rows + kRnnTileRows - 1) / kRnnTileRows;
  for (int64_t row = 0; tiles > 0; --tiles) {
    const int64_t height = (rows - row + tiles - 1) / tiles;
    TileOf<Real, V, A, kShift, kRnnTileRows>(static_cast<int>(height), factors,
                                             count, sums, row);
    row += height;
  }
}

// The same for one factor of `vectors` vectors.
template <typename Real>
void MultiplyPlain(int vectors, const Factor<Real>& factor, int64_t rows,
                   const Sums<Real>& sums) {
  switch (vectors) {
    case 1:
      return Multiply<1, 1, 0>(&factor, 1, rows, sums);
    case 2:
      return Multiply<2, 2, 0>(&factor, 1, rows, sums);
    case 3:
      return Multiply<3, 3, 0>(&factor, 1, rows, sums);
    default:
      return Multiply<4, 4, 0>(&factor, 1, rows, sums);
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
    const Real* const row = rows[i] + first;
    VecOf<Real> d[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      d[v] = Load(dz + v * kLanesHere);
      HW3TF_IN_REGISTER(d[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const VecOf<Real> x = Broadcast(row[r]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = x * d[v] + acc[r][v];
    }
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
