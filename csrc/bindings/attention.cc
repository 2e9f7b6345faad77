// Attention on NumPy arrays: check, allocate, release the GIL, call the kernel.

#include "kernels/attention.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <new>
#include <optional>
#include <string>

#include "bindings/bindings.h"
#include "checks/attention_checks.h"

namespace py = pybind11;

namespace hw3tf {
namespace {

// No forcecast: a wrong dtype is refused, never converted. Strides are the
// kernel's to follow, as long as the last axis is contiguous.
using FloatArray = py::array_t<float, 0>;
using BoolArray = py::array_t<bool, py::array::c_style>;
using OptionalMask = std::optional<BoolArray>;

Dims DimsOf(const py::array& array) {
  return Dims(array.shape(), array.shape() + array.ndim());
}

void Require(const std::string& error) {
  if (!error.empty()) throw py::value_error(error);
}

ConstArray View(const char* name, const FloatArray& array) {
  constexpr auto kSize = static_cast<py::ssize_t>(sizeof(float));
  if (array.size() == 0) return {array.data(), {0, 0, 0}};
  bool readable = array.shape(3) <= 1 || array.strides(3) == kSize;
  for (int axis = 0; axis < 3; ++axis)
    readable = readable && array.strides(axis) % kSize == 0;
  if (!readable)
    throw py::value_error("`" + std::string(name) +
                          "` must be contiguous along its last axis. "
                          "Received: strides " +
                          ToString(Dims(array.strides(), array.strides() + 4)) +
                          " in bytes");
  return {array.data(),
          {array.strides(0) / kSize, array.strides(1) / kSize,
           array.strides(2) / kSize}};
}

struct Inputs {
  AttentionShape shape;
  AttentionOptions options;
  ConstArray query, key, value;
};

const uint8_t* MaskData(const OptionalMask& mask) {
  return mask ? reinterpret_cast<const uint8_t*>(mask->data()) : nullptr;
}

Inputs CheckInputs(const FloatArray& query, const FloatArray& key,
                   const FloatArray& value, const OptionalMask& query_mask,
                   const OptionalMask& key_mask, float scale, bool is_causal) {
  const Dims query_mask_dims = query_mask ? DimsOf(*query_mask) : Dims{};
  const Dims key_mask_dims = key_mask ? DimsOf(*key_mask) : Dims{};
  const AttentionDims dims{DimsOf(query), DimsOf(key), DimsOf(value),
                           query_mask ? &query_mask_dims : nullptr,
                           key_mask ? &key_mask_dims : nullptr};
  Inputs inputs;
  Require(CheckAttention(dims, &inputs.shape));
  inputs.options = {scale, is_causal, MaskData(query_mask), MaskData(key_mask)};
  inputs.query = View("query", query);
  inputs.key = View("key", key);
  inputs.value = View("value", value);
  return inputs;
}

MutableArray Output(FloatArray& array) {
  return {array.mutable_data(), ContiguousStrides(DimsOf(array))};
}

py::tuple Forward(const FloatArray& query, const FloatArray& key,
                  const FloatArray& value, const OptionalMask& query_mask,
                  const OptionalMask& key_mask, float scale, bool is_causal) {
  const Inputs in =
      CheckInputs(query, key, value, query_mask, key_mask, scale, is_causal);
  FloatArray output(OutputDims(in.shape));
  FloatArray statistics(StatisticsDims(in.shape));
  const AttentionForwardArgs args{in.shape,
                                  in.options,
                                  in.query,
                                  in.key,
                                  in.value,
                                  Output(output),
                                  statistics.mutable_data()};
  bool done;
  {
    py::gil_scoped_release nogil;
    done = AttentionForward(args, /*num_threads=*/0);
  }
  if (!done) throw std::bad_alloc();
  return py::make_tuple(output, statistics);
}

py::tuple Backward(const FloatArray& query, const FloatArray& key,
                   const FloatArray& value, const OptionalMask& query_mask,
                   const OptionalMask& key_mask, const FloatArray& output,
                   const py::array_t<float, py::array::c_style>& statistics,
                   const FloatArray& grad_output, float scale, bool is_causal) {
  const Inputs in =
      CheckInputs(query, key, value, query_mask, key_mask, scale, is_causal);
  Require(CheckDims("output", DimsOf(output), OutputDims(in.shape)));
  Require(
      CheckDims("statistics", DimsOf(statistics), StatisticsDims(in.shape)));
  Require(CheckDims("grad_output", DimsOf(grad_output), OutputDims(in.shape)));
  FloatArray grad_query(DimsOf(query));
  FloatArray grad_key(DimsOf(key));
  FloatArray grad_value(DimsOf(value));
  const AttentionBackwardArgs args{
      in.shape,           in.options,
      in.query,           in.key,
      in.value,           View("output", output),
      statistics.data(),  View("grad_output", grad_output),
      Output(grad_query), Output(grad_key),
      Output(grad_value)};
  bool done;
  {
    py::gil_scoped_release nogil;
    done = AttentionBackward(args, /*num_threads=*/0);
  }
  if (!done) throw std::bad_alloc();
  return py::make_tuple(grad_query, grad_key, grad_value);
}

}  // namespace

void RegisterAttention(py::module_& m) {
  m.def("attention_forward", &Forward, py::arg("query").noconvert(),
        py::arg("key").noconvert(), py::arg("value").noconvert(),
        py::arg("query_mask").noconvert().none(true) = py::none(),
        py::arg("key_mask").noconvert().none(true) = py::none(), py::kw_only(),
        py::arg("scale"), py::arg("is_causal") = false,
        "Returns (output, statistics); see csrc/kernels/attention.h.\n\n"
        "query (B, T, N, H), key (B, S, K, H), value (B, S, K, V): float32,\n"
        "contiguous along the last axis. query_mask (B, T), key_mask (B, S):\n"
        "bool, C-contiguous, True = takes part. Raises TypeError on a wrong\n"
        "dtype, ValueError on a wrong shape, MemoryError without memory.");
  m.def("attention_backward", &Backward, py::arg("query").noconvert(),
        py::arg("key").noconvert(), py::arg("value").noconvert(),
        py::arg("query_mask").noconvert().none(true),
        py::arg("key_mask").noconvert().none(true),
        py::arg("output").noconvert(), py::arg("statistics").noconvert(),
        py::arg("grad_output").noconvert(), py::kw_only(), py::arg("scale"),
        py::arg("is_causal") = false,
        "Returns (grad_query, grad_key, grad_value) from what\n"
        "attention_forward took and returned, and the gradient of its output.");
  m.def(
      "attention_tiles",
      [] {
        const AttentionTiles tiles = GetAttentionTiles();
        py::dict result;
        result["query_tile"] = tiles.query_tile;
        result["query_block"] = tiles.query_block;
        result["key_tile"] = tiles.key_tile;
        result["key_chunk"] = tiles.key_chunk;
        return result;
      },
      "Tile sizes of the instruction set in use: the lengths worth testing.");
}

}  // namespace hw3tf
