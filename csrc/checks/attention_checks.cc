#include "checks/attention_checks.h"

#include <utility>

#include "checks/attention_values.h"

namespace hw3tf {
namespace {

constexpr char kNoKeys[] =
    "at least one position: attention over no keys is not defined";

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
  const Dims but_size(args.key.begin(), args.key.end() - 1);
  if (Dims(args.value.begin(), args.value.end() - 1) != but_size)
    return WrongShape("value",
                      std::string(IsPacked(args) ? "the rows and heads"
                                                 : "the batch size, length and "
                                                   "heads") +
                          " of `key`, " + ToString(args.key),
                      args.value);
  if (shape->value_dim < 1)
    return WrongShape("value", "at least one feature", args.value);
  return "";
}

// Batch and lengths of a call with axes for them.
std::string CheckDense(const AttentionArguments& args,
                       const AttentionOptions& options, AttentionShape* shape) {
  shape->batch = args.query[0];
  shape->query_len = args.query[1];
  shape->key_len = args.key[1];
  if (args.key[0] != shape->batch)
    return WrongShape(
        "key", "the batch size of `query`, " + std::to_string(shape->batch),
        args.key);
  if (shape->key_len < 1) return WrongShape("key", kNoKeys, args.key);
  struct Side {
    const char *mask_name, *lengths_name, *of;
    const std::optional<Dims>&mask, &lengths;
    const int32_t* values;
    int64_t length;
  };
  for (const Side& side :
       {Side{"query_mask", "query_lengths", "query", args.query_mask,
             args.query_lengths, options.query_lengths, shape->query_len},
        Side{"key_mask", "key_lengths", "key", args.key_mask, args.key_lengths,
             options.key_lengths, shape->key_len}}) {
    std::string error;
    if (side.mask)
      error =
          CheckDims(side.mask_name, *side.mask, {shape->batch, side.length});
    if (error.empty() && side.lengths)
      error = CheckDims(side.lengths_name, *side.lengths, {shape->batch});
    if (error.empty() && side.lengths)
      error = CheckLengths(side.lengths_name, side.values, shape->batch,
                           side.of, side.length);
    if (!error.empty()) return error;
  }
  return "";
}

// Batch and lengths of a call that has them in its splits.
std::string CheckPacked(const AttentionArguments& args,
                        const AttentionOptions& options,
                        AttentionShape* shape) {
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
  shape->batch = (*args.query_splits)[0] - 1;
  if (error.empty())
    error = CheckSplits("query_splits", options.query_splits, shape->batch,
                        "query", args.query[0], &shape->query_len);
  if (error.empty())
    error = CheckSplits("key_splits", options.key_splits, shape->batch, "key",
                        args.key[0], &shape->key_len);
  if (error.empty() && args.query[0] > 0 && args.key[0] == 0)
    error = WrongShape("key", kNoKeys, args.key);
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
  for (const Dims& dims : {args.query, args.key, args.value, OutputDims(args),
                           StatisticsDims(args), scores})
    if (!Countable(dims))
      return WrongShape("query",
                        "sizes whose products with those of `key`, " +
                            ToString(args.key) + ", and `value`, " +
                            ToString(args.value) + ", fit into 64 bits",
                        args.query);
  std::string error;
  if (args.bias) error = CheckBroadcasts("bias", *args.bias, scores);
  if (error.empty() && args.mask)
    error = CheckBroadcasts("mask", *args.mask, scores);
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
                           AttentionOptions* options, AttentionShape* shape) {
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
    error = IsPacked(arguments) ? CheckPacked(arguments, *options, shape)
                                : CheckDense(arguments, *options, shape);
  if (error.empty()) error = CheckHeads(arguments, shape);
  if (error.empty()) error = CheckSizes(arguments, *shape);
  // Packed, without a single query: the contract of the kernels knows no S = 0.
  if (shape->key_len == 0) shape->key_len = 1;
  return error;
}

Dims OutputDims(const AttentionArguments& arguments) {
  Dims dims = arguments.query;
  dims.back() = arguments.value.back();
  return dims;
}

Dims LogsumexpDims(const AttentionArguments& arguments) {
  const Dims& query = arguments.query;
  if (IsPacked(arguments)) return {query[1], query[0]};
  return {query[0], query[2], query[1]};
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

std::string CheckDropoutMask(const Dims& dims, double rate,
                             AttentionShape* shape) {
  bool fits = dims.size() == 4 && Countable(dims);
  for (int64_t size : dims) fits = fits && size >= 0;
  if (!fits)
    return "`shape` must be 4 sizes: (batch, num_heads, query_length, "
           "key_length). Received: shape=" +
           ToString(dims);
  *shape = {dims[0], dims[2], dims[3], dims[1], dims[1], 1, 1};
  return CheckDropoutRate("rate", rate);
}

}  // namespace hw3tf
