// NumPy arrays as the kernels see them: shapes, types, strides; and the errors
// for those that they cannot take.

#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "operations/dims.h"

namespace hw3tf {

using OptionalArray = std::optional<pybind11::array>;

Dims DimsOf(const pybind11::array& array);
std::optional<Dims> MaybeDims(const OptionalArray& array);

// Raises ValueError unless `error` is empty.
void Require(const std::string& error);

// "float32"; of another byte order, ">f4".
std::string NameOf(const pybind11::array& array);

// Whether the array has NumPy's kind and size, in native byte order.
bool Is(const pybind11::array& array, char kind, pybind11::ssize_t size);

// Raises TypeError unless it has; `type` is its name.
void RequireType(const char* name, const pybind11::array& array, char kind,
                 pybind11::ssize_t size, const char* type);

// The data of an array that must be C-contiguous, else ValueError.
const void* ContiguousData(const char* name, const pybind11::array& array);

// In elements, if they all are whole, else ValueError. No element of an axis of
// size 1 or 0 is ever stepped over.
Dims StridesOf(const char* name, const pybind11::array& array,
               bool last_contiguous);

}  // namespace hw3tf
