// The integer recurrence h_t = activation(W x_t + U h_{t-1} + b): the contract.
//
// This folder knows nothing of Python, NumPy or TensorFlow: pointers, sizes and
// strides in, pointers out. Callers validate (csrc/bindings, csrc/jax,
// csrc/tensorflow); kernels only assert, in debug builds.

#pragma once

#include <cstdint>

#include "kernels/runtime/export.h"

namespace hw3tf {

enum class IntDType { kBool, kInt8, kUint8, kInt16, kInt32, kInt64 };

struct RecurrenceShape {
  int64_t batch;      // B
  int64_t timesteps;  // T
  int64_t features;   // F, at least 1
  int64_t units;      // at least 1
};

// Of the exact sum W x_t + U h_{t-1} + b, after it has been brought into the
// range of the state: x; max(0, x); -1, 0 or 1; the nearest of [low, high].
enum class Activation { kNone, kRelu, kSign, kClip };

// A step overflows if the exact value of W x_t + U h_{t-1} + b, rounded to
// fractional_bits and before the activation, does not fit the state. Only this
// value counts, not the products and partial sums. A masked step cannot
// overflow.
enum class Overflow {
  kRaise,     // the call fails and says where
  kWrap,      // two's complement
  kSaturate,  // the nearest number of the state's range, at every step
};

struct RecurrenceOptions {
  Activation activation = Activation::kNone;
  int64_t clip_low = 0, clip_high = 0;  // of kClip, within the state's range
  Overflow overflow = Overflow::kRaise;
  // Fixed point: with n > 0 the exact sum s becomes floor(s / 2^n + 1/2). Less
  // than the number of bits of the state.
  int fractional_bits = 0;
  // Steps are taken from T - 1 down to 0, and states come out in the order in
  // which they were made, as with Keras's go_backwards.
  bool reverse = false;
  // All states, (B, T, units), or the last, (B, units).
  bool return_sequences = false;
};

// "State" below is int32_t or int64_t, as state_dtype says. Weights have that
// type; or they are int8_t, where the state is int32_t.
struct RecurrenceArgs {
  IntDType input_dtype;
  IntDType weight_dtype;  // of kernel and recurrent_kernel
  IntDType state_dtype;
  RecurrenceShape shape;
  RecurrenceOptions options;
  const void* inputs;  // (B, T, F), the last axis contiguous
  int64_t input_batch_stride, input_time_stride;  // in elements
  const void* kernel;                             // W: (F, units)
  const void* recurrent_kernel;                   // U: (units, units)
  const void* bias;           // State (units); nullptr = zeros
  const void* initial_state;  // State (B, units); nullptr = zeros
  const uint8_t* mask;  // (B, T), 0 = the step keeps the state; nullptr = none
  void* output;         // State, overwritten
};

enum class RecurrenceStatus { kDone, kOverflow, kOutOfMemory };

struct RecurrenceResult {
  RecurrenceStatus status;
  // Of kOverflow: the smallest batch entry that overflows, and the index, in
  // the order of the inputs, of the first step taken at which it does.
  int64_t batch_entry, timestep;
};

// Inputs of every type are widened exactly. Without timesteps the last state is
// the initial state. All arrays but the inputs are C-contiguous; the output
// does not overlap them. If the status is not kDone, what the output holds is
// not defined.
//
// The integers modulo 2^32 or 2^64 are a ring, where every order of summation
// gives the same bits: the result does not depend on `num_threads`, the
// instruction set, or how the time is cut. `num_threads` <= 0 means the pool's
// default (parallel.h).
//
// kRaise costs as little as kWrap while bounds prove that a step cannot
// overflow: bounds from the largest input, the largest state and the sums of
// the weights' magnitudes. Steps without proof are summed again, in as many
// bits as needed.
//
// Cost: B*T*units*(F + units) multiplications; B*T*units*(F + 1) if U is
// diagonal.
HW3TF_EXPORT RecurrenceResult IntegerRecurrence(const RecurrenceArgs& args,
                                                int num_threads);

}  // namespace hw3tf
