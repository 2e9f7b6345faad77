// The operations as handlers of XLA's foreign function interface, by which JAX
// calls them. They need no symbol of XLA: jaxlib hands over what they call.

#pragma once

#include "jax/ffi_api.h"
#include "operations/description.h"

namespace hw3tf {

struct FfiHandler {
  const Operation* operation;
  XLA_FFI_Handler* handler;
};

// One for each operation, in the order of Operations().
List<FfiHandler> FfiHandlers();

}  // namespace hw3tf
