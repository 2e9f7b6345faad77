// An array of a call, as TensorFlow and XLA hand it over.

#pragma once

#include <optional>

#include "operations/dims.h"

namespace hw3tf {

// A dense array, C-contiguous; nullopt is one not given.
struct Operand {
  std::optional<Dims> dims;
  const void* data = nullptr;
};

}  // namespace hw3tf
