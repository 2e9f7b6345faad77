// The handlers of XLA's foreign function interface, for JAX.

#include <pybind11/pybind11.h>

#include "bindings/bindings.h"
#include "jax/ffi_handlers.h"

namespace py = pybind11;

namespace hw3tf {
namespace {

py::dict Handlers() {
  py::dict handlers;
  for (const FfiHandler& entry : FfiHandlers())
    handlers[entry.operation->name] =
        py::capsule(reinterpret_cast<void*>(entry.handler));
  return handlers;
}

}  // namespace

void RegisterFfi(py::module_& m) {
  m.def("ffi_handlers", &Handlers,
        "The operations as handlers of XLA's foreign function interface: a\n"
        "dict of capsules by the names of the operations, as\n"
        "`jax.ffi.register_ffi_target` takes them. They need no jaxlib.");
}

}  // namespace hw3tf
