// LSTM, GRU and the simple RNN, forward and backward: the contract.
//
// This folder knows nothing of Python, NumPy or TensorFlow: pointers, sizes and
// strides in, pointers out. Callers validate (csrc/operations); kernels only
// assert, in debug builds.
//
// With x_t of shape (F,), h of shape (U,), K of shape (F, G U), R of shape
// (U, G U) and the gates in Keras's order:
//
//   LSTM, G = 4: i, f, c~, o = x K + h R + b, each U wide
//     c' = s(f) c + s(i) a(c~);  h' = s(o) a(c')
//   GRU, G = 3: z, r as above
//     reset after:   h~ = a(x K_h + b_h + r (h R_h + b'_h))
//     reset before:  h~ = a(x K_h + b_h + (r h) R_h)
//     h' = z h + (1 - z) h~
//   simple RNN, G = 1: h' = a(x K + h R + b)
//
// where a is `activation` and s is `recurrent_activation`.

#pragma once

#include <cstdint>

#include "kernels/runtime/export.h"

namespace hw3tf {

enum class RnnCell { kSimple, kGru, kLstm };
enum class RnnDType { kFloat32, kFloat64, kFloat16, kBfloat16 };
enum class RnnActivation { kTanh, kSigmoid, kRelu, kLinear, kHardSigmoid };

struct RnnShape {
  int64_t batch;      // B
  int64_t timesteps;  // T, at least 1
  int64_t features;   // F, at least 1
  int64_t units;      // U, at least 1
};

struct RnnOptions {
  RnnActivation activation = RnnActivation::kTanh;
  RnnActivation recurrent_activation = RnnActivation::kSigmoid;
  // Of the GRU: r multiplies h R_h + b'_h; otherwise it multiplies h.
  bool reset_after = true;
  // Steps are taken from T - 1 down to 0, and outputs come in the order in
  // which they were made, as with Keras's go_backwards.
  bool reverse = false;
  // All outputs, (B, T, U), or the last, (B, 1, U).
  bool return_sequences = false;
  // The output of a masked step is 0 instead of the output before it, the last
  // output, too.
  bool zero_output_for_mask = false;
  // Whether the forward pass fills `kept`, for the backward pass.
  bool keep = false;
};

// "T" below is the element that `dtype` says; Real is double where T is, else
// float. Everything is computed in Real, and rounded to T once.
struct RnnOperands {
  const void* inputs;  // T (B, T, F), the last axis contiguous
  int64_t input_batch_stride, input_time_stride;  // in elements
  const void* kernel;                             // K: T (F, G U)
  const void* recurrent_kernel;                   // R: T (U, G U)
  const void* bias;                               // b: T (G U); nullptr = zeros
  const void* recurrent_bias;  // b' of the GRU: T (G U); nullptr = zeros
  const void* initial_h;       // T (B, U); nullptr = zeros
  const void* initial_c;       // of the LSTM: T (B, U); nullptr = zeros
  // (B, T), 0 = the step keeps the states; nullptr = none.
  const uint8_t* mask;
  // (B), each from 0 to T: later steps are masked; nullptr = none. Beside a
  // mask, both count.
  const int32_t* lengths;
  // What x and h are multiplied by before K and R: T (1 or G, B, F) and
  // (1 or G, B, U), one for all gates or one for each; nullptr = none. Keras's
  // dropout masks.
  const void* input_dropout;
  const void* recurrent_dropout;
  int input_dropouts, recurrent_dropouts;  // 1 or G
};

struct RnnForwardArgs {
  RnnCell cell;
  RnnDType dtype;
  RnnShape shape;
  RnnOptions options;
  RnnOperands operands;
  void* outputs;  // T (B, T, U) or (B, 1, U)
  void* last_h;   // T (B, U)
  void* last_c;   // of the LSTM: T (B, U)
  void* kept;     // Real (RnnKeptElements), if options.keep
};

// Gradients are overwritten; nullptr = not wanted. The gradients of results are
// nullptr where they are zero. Second derivatives are not computed.
struct RnnBackwardArgs {
  RnnCell cell;
  RnnDType dtype;
  RnnShape shape;
  RnnOptions options;
  RnnOperands operands;
  const void* outputs;       // of the forward pass
  const void* kept;          // of the forward pass
  const void* grad_outputs;  // T (B, T, U) or (B, 1, U)
  const void* grad_last_h;   // T (B, U)
  const void* grad_last_c;   // T (B, U)
  void* grad_inputs;         // T (B, T, F), contiguous
  void* grad_kernel;
  void* grad_recurrent_kernel;
  void* grad_bias;
  void* grad_recurrent_bias;
  void* grad_initial_h;
  void* grad_initial_c;
};

// The number of Reals that the backward pass needs: for each step of each batch
// entry the activated gates (LSTM 4 U, GRU 4 U: z, r, h~ and h R_h + b'_h;
// simple RNN none), the LSTM's c, and h where `outputs` does not hold it.
HW3TF_EXPORT int64_t RnnKeptElements(RnnCell cell, RnnDType dtype,
                                     const RnnShape& shape,
                                     const RnnOptions& options);

// A step with a mask of 0 costs nothing: sequences are shortened to the steps
// they have, and sorted by length.
//
// The result does not depend on `num_threads`: the order of every sum is fixed
// by the shape and the lengths. `num_threads` <= 0 means the pool's default
// (parallel.h). Returns false without memory; what the results hold is then not
// defined.
//
// Cost: B T (F + U) G U multiplications forward, twice that backward.
HW3TF_EXPORT bool RnnForward(const RnnForwardArgs& args, int num_threads);
HW3TF_EXPORT bool RnnBackward(const RnnBackwardArgs& args, int num_threads);

}  // namespace hw3tf
