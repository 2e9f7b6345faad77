// The Python module own_op.core: NumPy arrays in and out.

#include <pybind11/numpy.h>

#include "kernels.h"

namespace py = pybind11;

py::array AlternatingSum(const py::array& x, int64_t threads) {
  if (!x.dtype().equal(py::dtype::of<int64_t>()))
    throw py::type_error("`x` must be int64. Received: " +
                         std::string(py::str(x.dtype())));
  if (x.ndim() < 1)
    throw py::value_error("`x` must have at least 1 axis. Received: a scalar");
  // A copy in C's order, unless `x` is in that order.
  const py::array_t<int64_t, py::array::c_style> rows(x);
  const auto axes = x.ndim() - 1;
  py::array_t<int64_t> y(std::vector<int64_t>(x.shape(), x.shape() + axes));
  const own_op::Options options{y.size(), x.shape(axes), threads};
  int64_t* const sums = y.mutable_data();
  {
    py::gil_scoped_release others_may_run;  // nothing of Python is used in here
    own_op::AlternatingSum(options, rows.data(), sums);
  }
  return y;
}

PYBIND11_MODULE(core, module) {
  module.def("alternating_sum", &AlternatingSum, py::arg("x"), py::arg("threads") = 0,
             "Alternating sum over the last axis.");
}
