// The Python function of any operation: it reads NumPy arrays by the table,
// checks, allocates, releases the GIL and calls the kernel.

#pragma once

#include <pybind11/pybind11.h>

#include "operations/description.h"

namespace hw3tf {

void RegisterEntry(pybind11::module_& m, const Operation& operation);

}  // namespace hw3tf
