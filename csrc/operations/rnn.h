// LSTM, GRU and the simple RNN, and their gradients.

#pragma once

#include "operations/description.h"

namespace hw3tf {

extern const Operation kLstmOperation;
extern const Operation kLstmGrad;
extern const Operation kGruOperation;
extern const Operation kGruGrad;
extern const Operation kSimpleRnnOperation;
extern const Operation kSimpleRnnGrad;

}  // namespace hw3tf
