// Functions of Python beside the calls of attention: the weights that dropout
// keeps, the sizes of tiles.

#include "kernels/attention/attention.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/without_gil.h"
#include "operations/attention.h"

namespace py = pybind11;

namespace hw3tf {
namespace {

py::array_t<bool> DropoutMask(const Dims& dims, double rate, int64_t seed) {
  AttentionShape shape;
  Require(CheckDropoutMask(dims, rate, &shape));
  py::array_t<bool> keep(dims);
  auto* data = reinterpret_cast<uint8_t*>(keep.mutable_data());
  {
    const WithoutGil nogil;
    AttentionDropoutMask(shape, rate, static_cast<uint64_t>(seed), data);
  }
  return keep;
}

py::dict Tiles() {
  const AttentionTiles tiles = GetAttentionTiles();
  py::dict result;
  result["query_tile"] = tiles.query_tile;
  result["query_block"] = tiles.query_block;
  result["key_tile"] = tiles.key_tile;
  result["key_chunk"] = tiles.key_chunk;
  return result;
}

}  // namespace

void RegisterAttention(py::module_& m) {
  m.def("attention_dropout_mask", &DropoutMask, py::arg("shape"), py::kw_only(),
        py::arg("rate"), py::arg("seed"),
        "Which weights dropout keeps: bool, of the shape (B, N, T, S).");
  m.def("attention_tiles", &Tiles,
        "Tile sizes of the instruction set in use: the lengths worth testing.");
}

}  // namespace hw3tf
