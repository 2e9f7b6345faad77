#include "checks/attention_checks.h"

#include <utility>

#include "checks/attention_values.h"

namespace hw3tf {
namespace {

bool IsPacked(const AttentionArguments& args) {
  return args.query_splits.has_value();
}

std::string CheckRank(const char* name, const Dims& dims, bool packed,
                      const char* length, const char* heads, const char* size) {
  if (dims.size() == (packed ? 3u : 4u)) return "";
  const std::string axes = std::string(length) + ", " + heads + ", " + size;
  return WrongShape(name,
                    packed ? "3 axes in a packed call: (total_" + axes + ")"
                           : "4 axes: (batch, " + axes + ")",
                    dims);
}

std::string CheckRanks(const AttentionArguments& args) {
  const bool packed = IsPacked(args);
  std::string error = CheckRank("query", args.query, packed, "query_length",
                                "num_heads", "head_dim");
  if (error.empty())
    error = CheckRank("key", args.key, packed, "key_length", "num_kv_heads",
                      "head_dim");
  if (error.empty())
    error = CheckRank("value", args.value, packed, "key_length", "num_kv_heads",
                      "value_dim");
  return error;
}

// Heads and sizes: the last two axes, dense or packed.
std::string CheckHeads(const AttentionArguments& args, AttentionShape* shape) {
  const auto heads = [](const Dims& dims) { return dims[dims.size() - 2]; };
  shape->num_heads = heads(args.query);
  shape->head_dim = args.query.back();
  shape->num_kv_heads = heads(args.key);
  shape->value_dim = args.value.back();
  if (shape->num_heads < 1 || shape->head_dim < 1)
    return WrongShape("query", "at least one head of at least one feature",
                      args.query);
  if (shape->num_kv_heads < 1 || shape->num_heads % shape->num_kv_heads != 0)
    return WrongShape("key",
                      "a number of heads that divides the " +
                          std::to_string(shape->num_heads) +
                          " heads of `query`",
                      args.key);
  if (args.key.back() != shape->head_dim)
    return WrongShape(
        "key", "the head size of `query`, " + std::to_string(shape->head_dim),
        args.key);
  // The batch size has been checked.
  const int skip = IsPacked(args) ? 0 : 1;
  const Dims but_size(args.key.begin() + skip, args.key.end() - 1);
  if (Dims(args.value.begin() + skip, args.value.end() - 1) != but_size)
    return WrongShape("value",
                      std::string(IsPacked(args) ? "the rows" : "the length") +
                          " and heads of `key`, " + ToString(args.key),
                      args.value);
  if (shape->value_dim < 1)
    return WrongShape("value", "at least one feature", args.value);
  return "";
}

// Batch sizes are equal or 1, as in NumPy's rules.
int64_t BatchOf(const AttentionArguments& args) {
  for (const Dims& dims : {args.query, args.key, args.value})
    if (dims[0] != 1) return dims[0];
  return 1;
}

std::string CheckBatch(const AttentionArguments& args, int64_t batch) {
  const std::pair<const char*, const Dims&> operands[] = {
      {"query", args.query}, {"key", args.key}, {"value", args.value}};
  const char* first = "query";
  for (const auto& [name, dims] : operands) {
    if (dims[0] != 1 && dims[0] != batch)
      return WrongShape(name,
                        "the batch size of `" + std::string(first) + "`, " +
                            std::to_string(batch) + ", or 1",
                        dims);
    if (dims[0] == batch && batch != 1 && args.query[0] == 1) first = name;
  }
  return "";
}

// A mask (batch, length) or lengths (batch), or the same with a batch of 1.
std::string CheckShared(const char* name, const Dims& dims, Dims expected) {
  if (!dims.empty() && dims[0] == 1) expected[0] = 1;
  return CheckDims(name, dims, expected);
}

// Copies lengths, one for each batch entry, and points to them.
void CopyLengths(const Dims& dims, int64_t batch, const int32_t** lengths,
                 std::vector<int32_t>* copy) {
  if (!*lengths) return;
  if (dims[0] == 1)
    copy->assign(static_cast<size_t>(batch), **lengths);
  else
    copy->assign(*lengths, *lengths + batch);
  *lengths = copy->data();
}

// Batch and lengths of a call with axes for them.
std::string CheckDense(const AttentionArguments& args,
                       AttentionOptions* options, AttentionShape* shape,
                       Positions* positions) {
  shape->batch = BatchOf(args);
  shape->query_len = args.query[1];
  shape->key_len = args.key[1];
  const std::string wrong_batch = CheckBatch(args, shape->batch);
  if (!wrong_batch.empty()) return wrong_batch;
  struct Side {
    const char *mask_name, *lengths_name, *of;
    const std::optional<Dims>&mask, &lengths;
    int64_t* mask_stride;
    const int32_t** values;
    std::vector<int32_t>* copy;
    int64_t length;
  };
  for (const Side& side :
       {Side{"query_mask", "query_lengths", "query", args.query_mask,
             args.query_lengths, &options->query_mask_stride,
             &options->query_lengths, &positions->query_lengths,
             shape->query_len},
        Side{"key_mask", "key_lengths", "key", args.key_mask, args.key_lengths,
             &options->key_mask_stride, &options->key_lengths,
             &positions->key_lengths, shape->key_len}}) {
    std::string error;
    if (side.mask) {
      error =
          CheckShared(side.mask_name, *side.mask, {shape->batch, side.length});
      *side.mask_stride =
          error.empty() && (*side.mask)[0] != 1 ? side.length : 0;
    }
    if (error.empty() && side.lengths)
      error = CheckShared(side.lengths_name, *side.lengths, {shape->batch});
    if (error.empty() && side.lengths) {
      CopyLengths(*side.lengths, shape->batch, side.values, side.copy);
      error =
          CheckLengths(side.lengths_name, *side.values,
                       *side.values ? shape->batch : 0, side.of, side.length);
    }
    if (!error.empty()) return error;
  }
  return "";
}

// Batch and lengths of a call that has them in its splits.
std::string CheckPacked(const AttentionArguments& args,
                        AttentionOptions* options, AttentionShape* shape,
                        Positions* positions) {
  const std::pair<const char*, const std::optional<Dims>&> others[] = {
      {"query_mask", args.query_mask},
      {"key_mask", args.key_mask},
      {"query_lengths", args.query_lengths},
      {"key_lengths", args.key_lengths}};
  for (const auto& [name, dims] : others)
    if (dims)
      return WrongShape(name,
                        "no place in a packed call: `query_splits` and "
                        "`key_splits` are its lengths",
                        *dims);
  if (args.query_splits->size() != 1 || (*args.query_splits)[0] < 1)
    return WrongShape("query_splits", "shape (batch + 1,)", *args.query_splits);
  std::string error =
      CheckDims("key_splits", *args.key_splits, *args.query_splits);
  if (!error.empty()) return error;
  shape->batch = (*args.query_splits)[0] - 1;
  positions->query_splits.assign(options->query_splits,
                                 options->query_splits + shape->batch + 1);
  positions->key_splits.assign(options->key_splits,
                               options->key_splits + shape->batch + 1);
  options->query_splits = positions->query_splits.data();
  options->key_splits = positions->key_splits.data();
  error = CheckSplits("query_splits", options->query_splits, shape->batch,
                      "query", args.query[0], &shape->query_len);
  if (error.empty())
    error = CheckSplits("key_splits", options->key_splits, shape->batch, "key",
                        args.key[0], &shape->key_len);
  return error;
}

std::string CheckSizes(const AttentionArguments& args,
                       const AttentionShape& shape) {
  const std::string longest =
      "at most " + std::to_string(kLongest) + " positions";
  if (shape.query_len > kLongest)
    return WrongShape("query", longest, args.query);
  if (shape.key_len > kLongest) return WrongShape("key", longest, args.key);
  // Scratch memory has rows of them, tens for each thread.
  const std::string widest =
      "at most " + std::to_string(kLongest) + " features per head";
  if (shape.head_dim > kLongest) return WrongShape("query", widest, args.query);
  if (shape.value_dim > kLongest)
    return WrongShape("value", widest, args.value);
  const Dims scores{shape.batch, shape.num_heads, shape.query_len,
                    shape.key_len};
  for (const Dims& dims :
       {args.query, args.key, args.value, OutputDims(args),
        StatisticsDims(args), scores,
        Dims{shape.batch, shape.query_len, shape.num_heads, shape.head_dim},
        Dims{shape.batch, shape.key_len, shape.num_kv_heads, shape.head_dim},
        Dims{shape.batch, shape.key_len, shape.num_kv_heads, shape.value_dim}})
    if (!Countable(dims))
      return WrongShape("query",
                        "sizes whose products with those of `key`, " +
                            ToString(args.key) + ", and `value`, " +
                            ToString(args.value) + ", fit into 64 bits",
                        args.query);
  std::string error;
  constexpr char kNames[] = "batch, num_heads, query_length, key_length";
  if (args.bias && !BroadcastsTo(scores, *args.bias))
    return WrongBroadcast("bias", kNames, scores, *args.bias);
  if (args.mask && !BroadcastsTo(scores, *args.mask))
    return WrongBroadcast("mask", kNames, scores, *args.mask);
  return error;
}

}  // namespace

std::string CheckDType(const char* name, DType dtype,
                       const std::string& received) {
  if (received == Name(dtype)) return "";
  return WrongDType(name, "dtype " + std::string(Name(dtype)) + ", as `query`",
                    received);
}

std::string CheckReal(const char* name, DType dtype,
                      const std::string& received) {
  if (received == RealName(dtype)) return "";
  return WrongDType(name,
                    "dtype " + std::string(RealName(dtype)) +
                        ", which goes with query.dtype=" + Name(dtype),
                    received);
}

std::string CheckAttention(DType dtype, const AttentionArguments& arguments,
                           AttentionOptions* options, AttentionShape* shape,
                           Positions* positions) {
  if (arguments.query_splits.has_value() != arguments.key_splits.has_value())
    return arguments.query_splits
               ? WrongShape("query_splits", "`key_splits` beside it",
                            *arguments.query_splits)
               : WrongShape("key_splits", "`query_splits` beside it",
                            *arguments.key_splits);
  *shape = {};
  std::string error = CheckNumbers(dtype, options);
  if (error.empty()) error = CheckRanks(arguments);
  if (error.empty())
    error = IsPacked(arguments)
                ? CheckPacked(arguments, options, shape, positions)
                : CheckDense(arguments, options, shape, positions);
  if (error.empty()) error = CheckHeads(arguments, shape);
  if (error.empty()) error = CheckSizes(arguments, *shape);
  return error;
}

Dims OutputDims(const AttentionArguments& arguments) {
  Dims dims = arguments.query;
  if (!IsPacked(arguments)) dims[0] = BatchOf(arguments);
  dims.back() = arguments.value.back();
  return dims;
}

Dims LogsumexpDims(const AttentionArguments& arguments) {
  const Dims& query = arguments.query;
  if (IsPacked(arguments)) return {query[1], query[0]};
  return {BatchOf(arguments), query[2], query[1]};
}

Dims StatisticsDims(const AttentionArguments& arguments) {
  Dims dims = LogsumexpDims(arguments);
  dims.push_back(2);
  return dims;
}

std::string CheckResults(const AttentionArguments& arguments,
                         const AttentionResults& results) {
  const Dims output = OutputDims(arguments);
  std::string error = CheckDims("output", results.output, output);
  if (error.empty())
    error =
        CheckDims("statistics", results.statistics, StatisticsDims(arguments));
  if (error.empty())
    error = CheckDims("grad_output", results.grad_output, output);
  if (error.empty() && results.grad_logsumexp)
    error = CheckDims("grad_logsumexp", *results.grad_logsumexp,
                      LogsumexpDims(arguments));
  return error;
}

bool HasGradBias(const AttentionArguments& arguments) {
  return arguments.bias && !IsEmpty(*arguments.bias);
}

}  // namespace hw3tf
