// NumPy arrays as the kernels see them: types, shapes, strides; and the errors
// for those that they cannot take.

#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "operations/array.h"

namespace hw3tf {

Dims DimsOf(const pybind11::array& array);

// nullopt: no operation knows the type.
std::optional<Element> ElementOf(const pybind11::array& array);

// "float32"; of another byte order, ">f4".
std::string NameOf(const pybind11::array& array);

// Raises ValueError unless `error` is empty.
void Require(const std::string& error);

// Raises ValueError unless the array is C-contiguous.
void RequireContiguous(const char* name, const pybind11::array& array);

// In elements, if they all are whole, else ValueError. No element of an axis of
// size 1 or 0 is ever stepped over.
Dims StridesOf(const char* name, const pybind11::array& array,
               bool last_contiguous);

// Whether NumPy repeats an axis of it with a stride of 0.
bool IsRepeated(const pybind11::array& array);

}  // namespace hw3tf
