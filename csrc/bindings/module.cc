#include <pybind11/pybind11.h>

#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "bindings/bindings.h"
#include "bindings/without_gil.h"
#include "kernels/runtime/dispatch.h"
#include "operations/libraries.h"

namespace {

// pybind11 makes a ValueError of std::length_error, and a MemoryError that says
// "std::bad_alloc" of the other.
void TranslateOutOfMemory(std::exception_ptr thrown) {
  constexpr char kNoMemory[] = "out of memory in hw3tf._core";
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const std::bad_alloc&) {
    PyErr_SetString(PyExc_MemoryError, kNoMemory);
  } catch (const std::length_error&) {
    PyErr_SetString(PyExc_MemoryError, kNoMemory);
  }
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  std::string error = hw3tf::KernelsError();
  if (error.empty()) error = hw3tf::EnvironmentError();
  if (!error.empty()) throw pybind11::import_error(error);
  pybind11::register_local_exception_translator(&TranslateOutOfMemory);
  m.doc() = "The kernels of hw3tf on NumPy arrays. See hw3tf.ops for tensors.";
  m.attr("__version__") = HW3TF_VERSION;
  hw3tf::RegisterAttention(m);
  hw3tf::RegisterFfi(m);
  hw3tf::RegisterOperations(m);
  hw3tf::RegisterRuntime(m);
  hw3tf::WaitForKernelsAtExit();
}
