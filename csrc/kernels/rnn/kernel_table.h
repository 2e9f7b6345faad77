// The interface between rnn.cc and an instruction set: the table that the
// dispatch chooses, and the data that its functions read. Not part of the
// contract; include rnn.h instead. No STL here: the objects of the instruction
// sets include this file, and must share no inline function.
//
// Units are computed in panels. A panel has four vectors, the slots, for each
// row:
//
//   LSTM        i, f, c~, o         of as many units as a vector has lanes
//   GRU         h~, z, r, h R + b'  likewise; x K makes the first three, h R
//                                   the last three (reset before: the middle
//                                   two, then h~)
//   simple RNN  four times as many units
//
// so that one register tile serves all cells: 6 rows x 4 vectors with AVX-512.

#pragma once

#include <cstdint>

#include "kernels/rnn/rnn.h"

namespace hw3tf {

constexpr int kRnnSlots = 4;
constexpr int kRnnMostGates = 4;
// Units are padded to this in what the forward pass keeps, for every
// instruction set and element: a multiple of the widest vector.
constexpr int64_t kRnnPadding = 16;

// One call. A row is a batch entry that has steps; rows are sorted by the
// number of their steps, the longest first, so that those which take step s
// are the first ActiveRows(s).
template <typename Real>
struct RnnPlan {
  RnnCell cell;
  RnnOptions options;
  RnnShape shape;
  int64_t rows;
  const int32_t* order;   // the batch entry of a row
  const int32_t* steps;   // of a row
  const int32_t* active;  // the number of rows with a step s
  bool masked;            // some step of some entry is
  // (rows, T): the position, in the order in which outputs come, of each step
  // of a row; nullptr: step s is at position s.
  const int32_t* positions;

  const Real* inputs;
  int64_t input_batch_stride, input_time_stride;
  // Where x K is a product of pairs of bfloat16, the caller's inputs instead.
  const uint16_t* half_inputs;
  const Real* input_dropout;      // (input_dropouts, B, F)
  const Real* recurrent_dropout;  // (recurrent_dropouts, B, U)
  int input_dropouts, recurrent_dropouts;
  const Real* initial_h;  // (B, U); nullptr = zeros
  const Real* zeros;      // U of them, and a panel

  int64_t panels;        // of units
  int64_t padded_units;  // panels * units of a panel

  // Packed: (panels, F or U, vectors of a panel), and (panels, 4 vectors).
  // Pairs: two of F in each 32 bits, the last one beside a zero.
  const Real *kernel, *recurrent_kernel, *bias;

  // h of a step, and of the one before: (2, rows, U), by the parity of the
  // step.
  Real* h_now;
  // h of all steps, (B, T, U) by position; nullptr = not wanted.
  Real* h;
  // (T, panels, rows, vector), or (1, panels, rows, vector), overwritten at
  // each step; and c before the first step, (panels, rows, vector).
  Real* c;
  bool keeps_c;
  const Real* initial_c;
  Real* gates;  // (T, panels, rows, 4 vectors); nullptr = not kept

  // Backward.
  const Real* grad_outputs;    // (B, T or 1, U); nullptr = zeros
  Real* grad_inputs;           // (B, T, F); nullptr = not wanted
  const Real* kernel_rows;     // K^T, packed: (panels of F, columns of K)
  const Real* recurrent_rows;  // R^T, packed: (panels of U, columns of R)
  Real *grad_h, *grad_c;       // (rows, padded units)
  int64_t grad_stride;         // of grad_h: U, padded to whole panels of it
};

// Some steps of the backward pass, with all that the gradients of the weights
// need of them. Its flat rows are the active rows of its steps, step by step.
template <typename Real>
struct RnnChunk {
  int64_t first_step, last_step;  // the last one is not part of it
  const int64_t* offsets;         // the first flat row of each step
  int64_t flat_rows;              // of dz: room for the largest chunk
  int64_t used_rows;
  Real* dz;  // (panels, flat_rows, 4 vectors)
  // For each flat row, what was multiplied by K and R, once or for each gate:
  // (gates, flat_rows).
  const Real** x;
  const Real** h;
  Real* placed_x;  // (gates or 1, flat_rows, F)
  Real* placed_h;  // (gates or 1, flat_rows, U)
  // Where the gradient of x goes, and the row, of each flat row.
  Real** grad_x;
  int32_t* row;
};

// x K of some steps before these are taken, for few rows: then K is read once
// for all of them.
template <typename Real>
struct RnnAhead {
  int64_t most_steps;
  Real* sums;  // (panels, most_steps * rows, 4 vectors)
};

// The gradients of weights, in the order of the packed weights.
template <typename Real>
struct RnnWeightGradients {
  Real *kernel, *recurrent_kernel, *bias;  // as in RnnPlan
};

template <typename Real>
struct RnnKernelsOf {
  int64_t lanes;
  int64_t tile_rows;
  // Rows [first, last) through all their steps.
  int64_t (*forward_scratch)(const RnnPlan<Real>& plan, int64_t rows);
  void (*forward)(const RnnPlan<Real>& plan, int64_t first, int64_t last,
                  Real* scratch);
  // All rows in the panels [first, last): x K of the steps from one on, and a
  // step, for which those must be done.
  int64_t (*ahead_scratch)(const RnnPlan<Real>& plan,
                           const RnnAhead<Real>& ahead);
  void (*inputs_ahead)(const RnnPlan<Real>& plan, const RnnAhead<Real>& ahead,
                       int64_t step, int64_t first, int64_t last,
                       Real* scratch);
  void (*step_ahead)(const RnnPlan<Real>& plan, const RnnAhead<Real>& ahead,
                     int64_t step, int64_t first, int64_t last, Real* scratch);
  // Rows [first, last) backwards through the steps of a chunk: dz, grad_h and
  // grad_c.
  int64_t (*backward_scratch)(const RnnPlan<Real>& plan, int64_t rows);
  void (*backward)(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
                   int64_t first, int64_t last, Real* scratch);
  // The same for all rows and one step, in the column panels [first, last) of
  // R^T: grad_h of the step behind, then dz of this one. `step` may be one
  // before the first, which gives grad_h only.
  void (*step_back)(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
                    int64_t step, int64_t first, int64_t last, Real* scratch);
  // The gradient of the inputs in the flat rows [first, last) of a chunk.
  void (*inputs)(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
                 int64_t first, int64_t last, Real* scratch);
  // Adds the chunk's part of the gradients of K (or of R) in a panel, for the
  // rows [first, last) of K; of b, too, if `first` is 0 and it is K.
  void (*weights)(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
                  const RnnWeightGradients<Real>& gradients, bool recurrent,
                  int64_t panel, int64_t first, int64_t last);
};

// `size` elements of 16 bits to float32 and, rounded to the nearest even, back.
struct RnnConversions {
  void (*widen)(const void* from, RnnDType dtype, int64_t size, float* to);
  void (*narrow)(const float* from, RnnDType dtype, int64_t size, void* to);
};

struct RnnKernels {
  RnnKernelsOf<float> of_float;
  RnnKernelsOf<double> of_double;
  RnnConversions conversions;
};

extern const RnnKernels kRnnBase;
extern const RnnKernels kRnnAvx2;
extern const RnnKernels kRnnAvx512;
// The forward pass of an instruction set that multiplies pairs of bfloat16.
extern const RnnKernelsOf<float> kRnnAvx512Bfloat16;

// The columns of K or R that a vector of a packed panel holds, for both
// directions of packing.
struct RnnColumns {
  int64_t first;  // column of K
  int64_t count;  // fewer than a vector has lanes at the end
};

static inline int RnnGates(RnnCell cell) {
  return cell == RnnCell::kLstm ? 4 : cell == RnnCell::kGru ? 3 : 1;
}

// Vectors of a panel of K and of R.
static inline int RnnVectors(RnnCell cell) {
  return cell == RnnCell::kGru ? 3 : 4;
}

// The slot of the first vector of a panel of R.
static inline int RnnRecurrentSlot(RnnCell cell) {
  return cell == RnnCell::kGru ? 1 : 0;
}

// The gate in vector `vector` of a panel of K, or of R.
static inline int RnnGateOf(RnnCell cell, bool recurrent, int vector) {
  if (cell == RnnCell::kSimple) return 0;
  if (cell == RnnCell::kLstm || recurrent) return vector;
  return (vector + 2) % 3;  // h~, z, r
}

static inline int64_t RnnUnitsOfPanel(RnnCell cell, int64_t lanes) {
  return cell == RnnCell::kSimple ? kRnnSlots * lanes : lanes;
}

static inline RnnColumns RnnColumnsOf(RnnCell cell, int64_t units,
                                      int64_t lanes, bool recurrent,
                                      int64_t panel, int vector) {
  const int64_t unit = cell == RnnCell::kSimple
                           ? (panel * kRnnSlots + vector) * lanes
                           : panel * lanes;
  int64_t count = units - unit;
  if (count > lanes) count = lanes;
  if (count < 0) count = 0;
  return {RnnGateOf(cell, recurrent, vector) * units + unit, count};
}

}  // namespace hw3tf
