#include <pybind11/pybind11.h>

#include <string>

#include "bindings/bindings.h"
#include "bindings/without_gil.h"
#include "kernels/dispatch.h"

PYBIND11_MODULE(_core, m) {
  const std::string error = hw3tf::EnvironmentError();
  if (!error.empty()) throw pybind11::import_error(error);
  m.doc() = "The kernels of hw3tf on NumPy arrays. See hw3tf.ops for tensors.";
  m.attr("__version__") = HW3TF_VERSION;
  hw3tf::RegisterAttention(m);
  hw3tf::RegisterRecurrence(m);
  hw3tf::RegisterRuntime(m);
  hw3tf::WaitForKernelsAtExit();
}
