#include "tensorflow/attention_operands.h"

namespace hw3tf {
namespace {

// nullptr if it is not given.
template <typename T>
const T* Data(const Operand& operand) {
  return operand.dims ? static_cast<const T*>(operand.data) : nullptr;
}

ScoreStrides StridesOf(const std::optional<Dims>& dims) {
  if (!dims) return {0, 0, 0, 0};
  return BroadcastStrides(*dims, ContiguousStrides(*dims));
}

}  // namespace

std::string AttentionOperands::Set(DType dtype, const AttentionOptions& numbers,
                                   const Operand* operands) {
  arguments = {operands[kQuery].dims.value_or(Dims{}),
               operands[kKey].dims.value_or(Dims{}),
               operands[kValue].dims.value_or(Dims{}),
               operands[kBias].dims,
               operands[kMask].dims,
               operands[kQueryMask].dims,
               operands[kKeyMask].dims,
               operands[kQueryLengths].dims,
               operands[kKeyLengths].dims,
               operands[kQuerySplits].dims,
               operands[kKeySplits].dims};
  options = numbers;
  options.query_mask = Data<uint8_t>(operands[kQueryMask]);
  options.key_mask = Data<uint8_t>(operands[kKeyMask]);
  options.query_lengths = Data<int32_t>(operands[kQueryLengths]);
  options.key_lengths = Data<int32_t>(operands[kKeyLengths]);
  options.query_splits = Data<int64_t>(operands[kQuerySplits]);
  options.key_splits = Data<int64_t>(operands[kKeySplits]);
  std::string error =
      CheckAttention(dtype, arguments, &options, &shape, &positions);
  if (!error.empty()) return error;
  options.bias = Data<void>(operands[kBias]);
  options.bias_strides = StridesOf(arguments.bias);
  options.mask = Data<uint8_t>(operands[kMask]);
  options.mask_strides = StridesOf(arguments.mask);
  return "";
}

ConstArray View(const Operand& operand) {
  const Dims& dims = *operand.dims;
  return {operand.data, RowStrides(dims, ContiguousStrides(dims))};
}

MutableArray MutableView(const Dims& dims, void* data) {
  return {data, RowStrides(dims, ContiguousStrides(dims))};
}

}  // namespace hw3tf
