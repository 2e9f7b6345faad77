#include "checks/attention_checks.h"

#include <limits>

namespace hw3tf {
namespace {

std::string Expected(const char* name, const std::string& expected,
                     const Dims& received) {
  return "`" + std::string(name) + "` must have " + expected +
         ". Received: " + name + ".shape=" + ToString(received);
}

}  // namespace

std::string ToString(const Dims& dims) {
  std::string text = "(";
  for (size_t i = 0; i < dims.size(); ++i)
    text += (i ? ", " : "") + std::to_string(dims[i]);
  return text + (dims.size() == 1 ? ",)" : ")");
}

std::string CheckDims(const char* name, const Dims& received,
                      const Dims& expected) {
  if (received == expected) return "";
  return Expected(name, "shape " + ToString(expected), received);
}

std::string CheckAttention(const AttentionDims& dims, AttentionShape* shape) {
  if (dims.query.size() != 4)
    return Expected("query",
                    "4 axes: (batch, query_length, num_heads, "
                    "head_dim)",
                    dims.query);
  if (dims.key.size() != 4)
    return Expected("key",
                    "4 axes: (batch, key_length, num_kv_heads, "
                    "head_dim)",
                    dims.key);
  if (dims.value.size() != 4)
    return Expected("value",
                    "4 axes: (batch, key_length, num_kv_heads, "
                    "value_dim)",
                    dims.value);
  *shape = {dims.query[0], dims.query[1], dims.key[1],  dims.query[2],
            dims.key[2],   dims.query[3], dims.value[3]};
  if (dims.key[0] != shape->batch)
    return Expected(
        "key", "the batch size of `query`, " + std::to_string(shape->batch),
        dims.key);
  if (shape->num_heads < 1 || shape->head_dim < 1)
    return Expected("query", "at least one head of at least one feature",
                    dims.query);
  if (shape->key_len < 1)
    return Expected("key",
                    "at least one position: attention over no keys is "
                    "not defined",
                    dims.key);
  if (shape->num_kv_heads < 1 || shape->num_heads % shape->num_kv_heads != 0)
    return Expected("key",
                    "a number of heads that divides the " +
                        std::to_string(shape->num_heads) + " heads of `query`",
                    dims.key);
  if (dims.key[3] != shape->head_dim)
    return Expected(
        "key", "the head size of `query`, " + std::to_string(shape->head_dim),
        dims.key);
  if (dims.value[0] != dims.key[0] || dims.value[1] != dims.key[1] ||
      dims.value[2] != dims.key[2])
    return Expected(
        "value",
        "the batch size, length and heads of `key`, " + ToString(dims.key),
        dims.value);
  if (shape->value_dim < 1)
    return Expected("value", "at least one feature", dims.value);
  constexpr int64_t kLongest = std::numeric_limits<int32_t>::max() / 2;
  if (shape->query_len > kLongest)
    return Expected("query",
                    "at most " + std::to_string(kLongest) + " positions",
                    dims.query);
  if (shape->key_len > kLongest)
    return Expected("key", "at most " + std::to_string(kLongest) + " positions",
                    dims.key);
  std::string error;
  if (dims.query_mask)
    error = CheckDims("query_mask", *dims.query_mask,
                      {shape->batch, shape->query_len});
  if (error.empty() && dims.key_mask)
    error =
        CheckDims("key_mask", *dims.key_mask, {shape->batch, shape->key_len});
  return error;
}

Dims OutputDims(const AttentionShape& shape) {
  return {shape.batch, shape.query_len, shape.num_heads, shape.value_dim};
}

Dims StatisticsDims(const AttentionShape& shape) {
  return {shape.batch, shape.num_heads, shape.query_len, 2};
}

Strides ContiguousStrides(const Dims& dims) {
  return {dims[1] * dims[2] * dims[3], dims[2] * dims[3], dims[3]};
}

}  // namespace hw3tf
