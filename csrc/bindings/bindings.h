// The functions by which each file of this folder adds to `hw3tf._core`.

#pragma once

#include <pybind11/pybind11.h>

namespace hw3tf {

void RegisterAttention(pybind11::module_& m);
void RegisterFfi(pybind11::module_& m);
void RegisterOperations(pybind11::module_& m);
void RegisterRuntime(pybind11::module_& m);

}  // namespace hw3tf
