// The integer recurrence.

#pragma once

#include "operations/description.h"

namespace hw3tf {

extern const Operation kIntegerRnn;

}  // namespace hw3tf
