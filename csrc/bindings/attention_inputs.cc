#include "bindings/attention_inputs.h"

namespace py = pybind11;

namespace hw3tf {
namespace {

std::optional<DType> DTypeOf(const py::array& array) {
  if (Is(array, 'f', 4)) return DType::kFloat32;
  if (Is(array, 'f', 8)) return DType::kFloat64;
  if (Is(array, 'f', 2)) return DType::kFloat16;
  // NumPy has none of its own; that of ml_dtypes is a user type with this name.
  if (Is(array, 'V', 2) && NameOf(array) == "bfloat16") return DType::kBfloat16;
  return std::nullopt;
}

DType RequireFloat(const char* name, const py::array& array) {
  const std::optional<DType> dtype = DTypeOf(array);
  if (!dtype)
    throw py::type_error(WrongDType(
        name, "dtype float32, float64, float16 or bfloat16", NameOf(array)));
  return *dtype;
}

template <typename T>
const T* MaybeData(const char* name, const OptionalArray& array, char kind,
                   const char* type) {
  if (!array) return nullptr;
  RequireType(name, *array, kind, sizeof(T), type);
  return static_cast<const T*>(ContiguousData(name, *array));
}

ScoreStrides ScoreStridesOf(const char* name, const py::array& array) {
  return BroadcastStrides(DimsOf(array), StridesOf(name, array, false));
}

}  // namespace

void RequireDType(const char* name, const py::array& array, DType dtype) {
  if (DTypeOf(array) != dtype)
    throw py::type_error(CheckDType(name, dtype, NameOf(array)));
}

void RequireReal(const char* name, const py::array& array, DType dtype) {
  const std::string error = CheckReal(name, dtype, NameOf(array));
  if (!error.empty()) throw py::type_error(error);
}

ConstArray View(const char* name, const py::array& array) {
  return {array.data(),
          RowStrides(DimsOf(array), StridesOf(name, array, true))};
}

AttentionInputs::AttentionInputs(
    const py::array& query_array, const py::array& key_array,
    const py::array& value_array, double scale, const OptionalArray& bias_array,
    const OptionalArray& mask, const OptionalArray& query_mask,
    const OptionalArray& key_mask, const OptionalArray& query_lengths,
    const OptionalArray& key_lengths, const OptionalArray& query_splits,
    const OptionalArray& key_splits, bool is_causal, int64_t window_before,
    int64_t window_after, double soft_cap, double dropout_rate,
    int64_t dropout_seed)
    : dtype(RequireFloat("query", query_array)), bias(bias_array) {
  RequireDType("key", key_array, dtype);
  RequireDType("value", value_array, dtype);
  if (bias) RequireReal("bias", *bias, dtype);
  if (mask) RequireType("mask", *mask, 'b', 1, "bool");
  arguments = {
      DimsOf(query_array),     DimsOf(key_array),        DimsOf(value_array),
      MaybeDims(bias),         MaybeDims(mask),          MaybeDims(query_mask),
      MaybeDims(key_mask),     MaybeDims(query_lengths), MaybeDims(key_lengths),
      MaybeDims(query_splits), MaybeDims(key_splits)};
  options.scale = scale;
  options.soft_cap = soft_cap;
  options.is_causal = is_causal;
  options.window_before = window_before;
  options.window_after = window_after;
  options.query_mask =
      MaybeData<uint8_t>("query_mask", query_mask, 'b', "bool");
  options.key_mask = MaybeData<uint8_t>("key_mask", key_mask, 'b', "bool");
  options.query_lengths =
      MaybeData<int32_t>("query_lengths", query_lengths, 'i', "int32");
  options.key_lengths =
      MaybeData<int32_t>("key_lengths", key_lengths, 'i', "int32");
  options.query_splits =
      MaybeData<int64_t>("query_splits", query_splits, 'i', "int64");
  options.key_splits =
      MaybeData<int64_t>("key_splits", key_splits, 'i', "int64");
  options.dropout_rate = dropout_rate;
  options.dropout_seed = static_cast<uint64_t>(dropout_seed);
  Require(CheckAttention(dtype, arguments, &options, &shape, &positions));
  query = View("query", query_array);
  key = View("key", key_array);
  value = View("value", value_array);
  if (bias) {
    options.bias = bias->data();
    options.bias_strides = ScoreStridesOf("bias", *bias);
  }
  if (mask) {
    options.mask = static_cast<const uint8_t*>(mask->data());
    options.mask_strides = ScoreStridesOf("mask", *mask);
  }
}

void AttentionInputs::UnfoldBias() {
  const auto repeated = [this](py::ssize_t axis) {
    return bias->shape(axis) > 1 && bias->strides(axis) == 0;
  };
  for (py::ssize_t axis = 0; bias && axis < bias->ndim(); ++axis) {
    if (!repeated(axis)) continue;
    bias = py::array::ensure(*bias, py::array::c_style);
    if (!*bias) throw py::error_already_set();
    options.bias = bias->data();
    options.bias_strides = ScoreStridesOf("bias", *bias);
    return;
  }
}

}  // namespace hw3tf
