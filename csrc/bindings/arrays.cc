#include "bindings/arrays.h"

namespace py = pybind11;

namespace hw3tf {
namespace {

bool IsNative(const py::dtype& dtype) {
  return dtype.byteorder() == '=' || dtype.byteorder() == '|';
}

void RequireAligned(const char* name, const py::array& array) {
  const auto address = reinterpret_cast<uintptr_t>(array.data());
  if (address % static_cast<uintptr_t>(array.itemsize()) != 0)
    throw py::value_error("`" + std::string(name) +
                          "` must be aligned to the size of its elements. "
                          "Received: an address that is not a multiple of " +
                          std::to_string(array.itemsize()));
}

}  // namespace

Dims DimsOf(const py::array& array) {
  return Dims(array.shape(), array.shape() + array.ndim());
}

std::optional<Element> ElementOf(const py::array& array) {
  const py::dtype dtype = array.dtype();
  if (!IsNative(dtype)) return std::nullopt;
  const py::ssize_t size = dtype.itemsize();
  switch (dtype.kind()) {
    case 'b':
      return Element::kBool;
    case 'i':
      return size == 1   ? Element::kInt8
             : size == 2 ? Element::kInt16
             : size == 4 ? Element::kInt32
                         : Element::kInt64;
    case 'u':
      if (size == 1) return Element::kUint8;
      break;
    case 'f':
      if (size == 2) return Element::kFloat16;
      if (size == 4) return Element::kFloat32;
      if (size == 8) return Element::kFloat64;
      break;
    case 'V':
      // NumPy has none of its own; that of ml_dtypes is a user type with this
      // name.
      if (size == 2 && NameOf(array) == "bfloat16") return Element::kBfloat16;
      break;
    default:
      break;
  }
  return std::nullopt;
}

void Require(const std::string& error) {
  if (!error.empty()) throw py::value_error(error);
}

std::string NameOf(const py::array& array) {
  const py::dtype dtype = array.dtype();
  return IsNative(dtype) ? py::str(dtype.attr("name")) : py::str(dtype);
}

void RequireContiguous(const char* name, const py::array& array) {
  RequireAligned(name, array);
  if (!(array.flags() & py::array::c_style))
    throw py::value_error(
        "`" + std::string(name) + "` must be C-contiguous. Received: strides " +
        ToString(Dims(array.strides(), array.strides() + array.ndim())) +
        " in bytes");
}

Dims StridesOf(const char* name, const py::array& array, bool last_contiguous) {
  RequireAligned(name, array);
  Dims strides(static_cast<size_t>(array.ndim()), 0);
  bool readable = true;
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    if (array.size() == 0 || array.shape(axis) == 1) continue;
    const int64_t stride = array.strides(axis) / array.itemsize();
    readable = readable && array.strides(axis) % array.itemsize() == 0;
    if (last_contiguous && axis == array.ndim() - 1)
      readable = readable && stride == 1;
    strides[static_cast<size_t>(axis)] = stride;
  }
  if (readable) return strides;
  throw py::value_error(
      "`" + std::string(name) + "` must be " +
      (last_contiguous ? "contiguous along its last axis"
                       : "made of whole steps between its elements") +
      ". Received: strides " +
      ToString(Dims(array.strides(), array.strides() + array.ndim())) +
      " in bytes");
}

bool IsRepeated(const py::array& array) {
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis)
    if (array.shape(axis) > 1 && array.strides(axis) == 0) return true;
  return false;
}

}  // namespace hw3tf
