// Attention on NumPy arrays: check, allocate, release the GIL, call the kernel.

#include "kernels/attention/attention.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <new>

#include "bindings/attention_inputs.h"
#include "bindings/bindings.h"
#include "bindings/without_gil.h"

namespace py = pybind11;

namespace hw3tf {
namespace {

MutableArray Output(py::array& array) {
  const Dims dims = DimsOf(array);
  return {array.mutable_data(), RowStrides(dims, ContiguousStrides(dims))};
}

py::array RealArray(DType dtype, const Dims& dims) {
  if (dtype == DType::kFloat64) return py::array_t<double>(dims);
  return py::array_t<float>(dims);
}

// Without the GIL: TensorFlow's and Python's other threads go on.
template <typename Args>
void Run(bool (*kernel)(const Args&, int), const Args& args) {
  bool done;
  {
    const WithoutGil nogil;
    done = kernel(args, /*num_threads=*/0);
  }
  if (!done) throw std::bad_alloc();
}

// Both functions end with the same keywords, spelled out once: their names in
// Define, their types in `AttentionFunctions` below.
template <typename... Keywords>
struct Functions {
  static py::tuple Forward(const py::array& query, const py::array& key,
                           const py::array& value, bool finite_logsumexp,
                           Keywords... keywords) {
    const AttentionInputs in(query, key, value, keywords...);
    py::array output(query.dtype(), OutputDims(in.arguments));
    py::array statistics = RealArray(in.dtype, StatisticsDims(in.arguments));
    py::array logsumexp = RealArray(in.dtype, LogsumexpDims(in.arguments));
    Run(&AttentionForward,
        AttentionForwardArgs{in.dtype, in.shape, in.options, in.query, in.key,
                             in.value, Output(output),
                             statistics.mutable_data(),
                             logsumexp.mutable_data(), finite_logsumexp});
    return py::make_tuple(output, statistics, logsumexp);
  }

  static py::tuple Backward(const py::array& query, const py::array& key,
                            const py::array& value, const py::array& output,
                            const py::array& statistics,
                            const py::array& grad_output,
                            const OptionalArray& grad_logsumexp,
                            Keywords... keywords) {
    AttentionInputs in(query, key, value, keywords...);
    in.UnfoldBias();
    RequireDType("output", output, in.dtype);
    RequireReal("statistics", statistics, in.dtype);
    RequireDType("grad_output", grad_output, in.dtype);
    if (grad_logsumexp)
      RequireReal("grad_logsumexp", *grad_logsumexp, in.dtype);
    AttentionResults results{DimsOf(output), DimsOf(statistics),
                             DimsOf(grad_output), std::nullopt};
    if (grad_logsumexp) results.grad_logsumexp = DimsOf(*grad_logsumexp);
    Require(CheckResults(in.arguments, results));

    py::array grad_query(query.dtype(), in.arguments.query);
    py::array grad_key(query.dtype(), in.arguments.key);
    py::array grad_value(query.dtype(), in.arguments.value);
    OptionalArray grad_bias;
    if (in.bias) grad_bias = RealArray(in.dtype, *in.arguments.bias);
    Run(&AttentionBackward,
        AttentionBackwardArgs{
            in.dtype, in.shape, in.options, in.query, in.key, in.value,
            View("output", output), ContiguousData("statistics", statistics),
            View("grad_output", grad_output),
            grad_logsumexp ? ContiguousData("grad_logsumexp", *grad_logsumexp)
                           : nullptr,
            Output(grad_query), Output(grad_key), Output(grad_value),
            HasGradBias(in.arguments) ? grad_bias->mutable_data() : nullptr});
    return py::make_tuple(grad_query, grad_key, grad_value, grad_bias);
  }
};

using Array = const OptionalArray&;
using AttentionFunctions =
    Functions<double, Array, Array, Array, Array, Array, Array, Array, Array,
              bool, int64_t, int64_t, double, double, int64_t>;

template <typename Function, typename... Arguments>
void Define(py::module_& m, const char* name, Function function,
            const char* doc, const Arguments&... arguments) {
  const auto optional = [](const char* keyword) {
    return py::arg(keyword).noconvert().none(true) = py::none();
  };
  m.def(name, function, arguments..., py::kw_only(), py::arg("scale"),
        optional("bias"), optional("mask"), optional("query_mask"),
        optional("key_mask"), optional("query_lengths"),
        optional("key_lengths"), optional("query_splits"),
        optional("key_splits"), py::arg("is_causal") = false,
        py::arg("window_before") = -1, py::arg("window_after") = -1,
        py::arg("soft_cap") = 0.0, py::arg("dropout_rate") = 0.0,
        py::arg("dropout_seed") = 0, doc);
}

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
  const auto array = [](const char* name) { return py::arg(name).noconvert(); };
  Define(
      m, "attention_forward", &AttentionFunctions::Forward,
      "Returns (output, statistics, logsumexp); see\n"
      "csrc/kernels/attention/attention.h for what each option means.\n\n"
      "query (B, T, N, H), key (B, S, K, H), value (B, S, K, V): float32,\n"
      "float64, float16 or bfloat16 (of ml_dtypes), contiguous along the\n"
      "last axis. bias (float64 if query is, else float32) and mask (bool)\n"
      "broadcast to (B, N, T, S). query_mask (B, T), key_mask (B, S): bool.\n"
      "query_lengths, key_lengths (B,): int32. query_splits, key_splits\n"
      "(B + 1,): int64, for packed query (total_T, N, H), key and value.\n\n"
      "statistics (B, N, T, 2) and logsumexp (B, N, T) are float64 if query\n"
      "is, else float32; packed (N, total_T, ...). The logsumexp of a query\n"
      "that sees no key is -inf or, if finite_logsumexp, the lowest number.\n"
      "A batch of 1 serves every batch entry. Nothing is converted.\n"
      "Raises TypeError on a wrong dtype, ValueError on a wrong shape or\n"
      "value, MemoryError without memory.",
      array("query"), array("key"), array("value"),
      py::arg("finite_logsumexp") = false);
  Define(m, "attention_backward", &AttentionFunctions::Backward,
         "Returns (grad_query, grad_key, grad_value, grad_bias) from what\n"
         "attention_forward took and returned, and the gradients of its\n"
         "output and logsumexp (None = zero). grad_bias is None without bias.",
         array("query"), array("key"), array("value"), array("output"),
         array("statistics"), array("grad_output"),
         array("grad_logsumexp").none(true) = py::none());
  m.def("attention_dropout_mask", &DropoutMask, py::arg("shape"), py::kw_only(),
        py::arg("rate"), py::arg("seed"),
        "Which weights dropout keeps: bool, of the shape (B, N, T, S).");
  m.def("attention_tiles", &Tiles,
        "Tile sizes of the instruction set in use: the lengths worth testing.");
}

}  // namespace hw3tf
