// LSTM, GRU and the simple RNN as kernels/rnn/rnn.h defines them, one number
// after the other in double, forward and backward.

#pragma once

#include <cstdint>
#include <vector>

#include "kernels/rnn/rnn.h"

namespace hw3tf {

using Numbers = std::vector<double>;

// All arrays are contiguous; empty = not given.
struct RnnCase {
  RnnCell cell;
  RnnShape shape;
  RnnOptions options;
  Numbers inputs, kernel, recurrent_kernel, bias, recurrent_bias;
  Numbers initial_h, initial_c;
  std::vector<uint8_t> mask;
  std::vector<int32_t> lengths;
  Numbers input_dropout, recurrent_dropout;
  int input_dropouts = 1, recurrent_dropouts = 1;
  Numbers grad_outputs, grad_last_h, grad_last_c;

  int gates() const;
};

struct RnnResults {
  Numbers outputs, last_h, last_c;
  Numbers grad_inputs, grad_kernel, grad_recurrent_kernel, grad_bias;
  Numbers grad_recurrent_bias, grad_initial_h, grad_initial_c;
};

// The forward pass, and the gradients of the sum of outputs, last_h and last_c,
// each times its `grad_`.
RnnResults RnnFormula(const RnnCase& c);

// That sum.
double RnnObjective(const RnnCase& c);

}  // namespace hw3tf
