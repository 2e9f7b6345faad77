#include "operations/attention.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <type_traits>

#include "operations/floats.h"
#include "operations/put.h"

namespace hw3tf {
namespace {

using Forward = AttentionForwardArgs;
using Backward = AttentionBackwardArgs;
using Options = AttentionOptions;

// ---------------------------------------------------------------- the table

constexpr Axis kAxes[] = {
    {'B', "batch"},     {'T', "query_length"}, {'S', "key_length"},
    {'N', "num_heads"}, {'K', "num_kv_heads"}, {'H', "head_dim"},
    {'V', "value_dim"},
};

template <typename Args>
constexpr TypeParameter kTypes[] = {
    {Type::kT, "T", kFloats, "query", Type::kT, nullptr, ", as `query`",
     PutDType<Args>},
    {Type::kReal, "Real", kReals, nullptr, Type::kT, RealOf,
     ", which goes with query.dtype=", nullptr},
};

// What the forward and the backward pass take.
template <typename Args>
constexpr Operand kShared[] = {
    {"query", Type::kT, "B T N H", kStrided | kGradient | kOneBatch,
     PutRows<Args, &Args::query>},
    {"key", Type::kT, "B S K H", kStrided | kGradient | kOneBatch,
     PutRows<Args, &Args::key>},
    {"value", Type::kT, "B S K V", kStrided | kGradient | kOneBatch,
     PutRows<Args, &Args::value>},
    {"bias", Type::kReal, "B N T S",
     kOptional | kByKeyword | kBroadcasts | kGradient,
     PutScores<Args, &Options::bias, &Options::bias_strides>},
    {"mask", Type::kBool, "B N T S", kOptional | kByKeyword | kBroadcasts,
     PutScores<Args, &Options::mask, &Options::mask_strides>},
    {"query_mask", Type::kBool, "B T",
     kOptional | kByKeyword | kOneBatch | kNotPacked,
     PutPositionMask<Args, &Options::query_mask, &Options::query_mask_stride>},
    {"key_mask", Type::kBool, "B S",
     kOptional | kByKeyword | kOneBatch | kNotPacked,
     PutPositionMask<Args, &Options::key_mask, &Options::key_mask_stride>},
    {"query_lengths", Type::kInt32, "B",
     kOptional | kByKeyword | kOneBatch | kNotPacked | kPositions,
     PutData<Args, &Options::query_lengths>},
    {"key_lengths", Type::kInt32, "B",
     kOptional | kByKeyword | kOneBatch | kNotPacked | kPositions,
     PutData<Args, &Options::key_lengths>},
    {"query_splits", Type::kInt64, "B+1", kOptional | kByKeyword | kPositions,
     PutData<Args, &Options::query_splits>},
    {"key_splits", Type::kInt64, "B+1", kOptional | kByKeyword | kPositions,
     PutData<Args, &Options::key_splits>},
};

constexpr Operand kResultsOfForward[] = {
    {"output", Type::kT, "B T N V", kStrided | kGradient,
     PutRows<Backward, &Backward::output>},
    {"statistics", Type::kReal, "B N T 2", 0,
     PutData<Backward, &Backward::statistics>},
    {"grad_output", Type::kT, "B T N V", kStrided | kGradient,
     PutRows<Backward, &Backward::grad_output>},
    {"grad_logsumexp", Type::kReal, "B N T", kOptional | kGradient,
     PutData<Backward, &Backward::grad_logsumexp>},
};

template <typename Args>
constexpr bool kIsForward = std::is_same_v<Args, Forward>;

void PutFiniteLogsumexp(void* args, const Value& value) {
  static_cast<Forward*>(args)->finite_logsumexp = value.integer != 0;
}

// The gradient has the attributes of its operation. New ones come last and have
// a default: what was saved before has fewer of them.
template <typename Args>
constexpr Attribute kSharedAttributes[] = {
    {"scale", Kind::kNumber, Carrier::kNumbers, std::nullopt,
     PutValue<Args, &Options::scale>},
    {"is_causal", Kind::kBool, Carrier::kAttribute, Integer(false),
     PutValue<Args, &Options::is_causal>},
    {"window_before", Kind::kInt, Carrier::kAttribute, Integer(-1),
     PutValue<Args, &Options::window_before>},
    {"window_after", Kind::kInt, Carrier::kAttribute, Integer(-1),
     PutValue<Args, &Options::window_after>},
    {"soft_cap", Kind::kNumber, Carrier::kNumbers, Number(0),
     PutValue<Args, &Options::soft_cap>},
    {"dropout_rate", Kind::kNumber, Carrier::kNumbers, Number(0),
     PutValue<Args, &Options::dropout_rate>},
    {"dropout_seed", Kind::kInt, Carrier::kScalarInput, Integer(0),
     PutValue<Args, &Options::dropout_seed>},
    // Models saved by 0.1 have no such attribute, and want -infinity.
    {"finite_logsumexp",
     Kind::kBool,
     kIsForward<Args> ? Carrier::kAttribute : Carrier::kNotRead,
     Integer(false),
     kIsForward<Args> ? PutFiniteLogsumexp : nullptr,
     {},
     "",
     /*positional=*/true},
    // The bits of `numbers`, for gradients of the gradient, which must know
    // them when a graph is made.
    {"number_bits", Kind::kIntList, Carrier::kNotRead, Integer(0), nullptr},
};

// True if nobody wants the gradient of the bias, which may be as large as the
// scores.
constexpr Attribute kAttributesOfBackward[] = {
    {"skip_grad_bias", Kind::kBool, Carrier::kAttribute, Integer(false),
     nullptr},
};
constexpr auto kBackwardAttributes =
    Joined(kSharedAttributes<Backward>, kAttributesOfBackward);

constexpr Result kForwardResults[] = {
    {"output", Type::kT, "B T N V", nullptr, "query",
     PutOutputRows<Forward, &Forward::output>},
    {"statistics", Type::kReal, "B N T 2", nullptr, nullptr,
     PutOutput<Forward, &Forward::statistics>},
    {"logsumexp", Type::kReal, "B N T", nullptr, nullptr,
     PutOutput<Forward, &Forward::logsumexp>},
};

constexpr Result kBackwardResults[] = {
    {"grad_query", Type::kT, nullptr, "query", nullptr,
     PutOutputRows<Backward, &Backward::grad_query>},
    {"grad_key", Type::kT, nullptr, "key", nullptr,
     PutOutputRows<Backward, &Backward::grad_key>},
    {"grad_value", Type::kT, nullptr, "value", nullptr,
     PutOutputRows<Backward, &Backward::grad_value>},
    // Without scores a bias may have no elements, where its strides say 1.
    {"grad_bias", Type::kReal, nullptr, "bias", nullptr,
     PutUnlessEmpty<Backward, &Backward::grad_bias>, "skip_grad_bias"},
};

constexpr auto kBackwardOperands = Joined(kShared<Backward>, kResultsOfForward);

// ----------------------------------------------------------------- the rules

// Longer sequences could overflow the kernels' 32-bit positions, wider heads
// the sizes of their scratch memory.
constexpr int64_t kLongest = INT32_MAX / 2;

// The rules know these by name.
constexpr int Of(const char* name) {
  return IndexIn(List<Operand>(kShared<Forward>), name);
}
constexpr int kQuery = Of("query"), kKey = Of("key"), kValue = Of("value");
constexpr int kQuerySplits = Of("query_splits"), kKeySplits = Of("key_splits");

std::string CheckTypes(const Element* types) {
  constexpr int kT = static_cast<int>(Type::kT);
  constexpr int kReal = static_cast<int>(Type::kReal);
  Element wanted[kTypeParameters] = {};
  wanted[kT] = types[kT];
  wanted[kReal] = RealOf(types[kT]);
  return CheckElement(kAttention, wanted, Of("bias"), Name(types[kReal]));
}

// The kernels compute in Real: there 1e300 is infinite in float32.
bool IsFinite(bool is_double, double number) {
  return std::isfinite(is_double ? number : static_cast<float>(number));
}

bool IsNormal(bool is_double, double number) {
  if (is_double) return std::isnormal(number);
  return std::isnormal(static_cast<float>(number));
}

std::string CheckDropoutRate(const char* name, double rate) {
  if (rate >= 0 && rate < 1) return "";
  return WrongValue(name, "at least 0 and below 1", rate);
}

// A window that is wider than any sequence becomes "no limit": its edges could
// not be computed.
std::string CheckWindow(const char* name, int64_t* window) {
  if (*window < -1)
    return WrongValue(name, "a number of positions, or -1 for no limit",
                      *window);
  if (*window > kLongest) *window = -1;
  return "";
}

std::string CheckNumbers(Call* call) {
  const auto value = [&](const char* name) -> Value& {
    return call->attributes[IndexIn(call->operation.attributes, name)];
  };
  const bool is_double = call->ElementOf(Type::kReal) == Element::kFloat64;
  const std::string real = Name(call->ElementOf(Type::kReal));
  const double scale = value("scale").number;
  if (!IsFinite(is_double, scale))
    return WrongValue("scale", "a finite " + real, scale);
  const double soft_cap = value("soft_cap").number;
  if (soft_cap != 0 && !(soft_cap > 0 && IsNormal(is_double, soft_cap)))
    return WrongValue("soft_cap", "0 (none) or a positive, finite " + real,
                      soft_cap);
  std::string error =
      CheckDropoutRate("dropout_rate", value("dropout_rate").number);
  for (const char* name : {"window_before", "window_after"})
    if (error.empty()) error = CheckWindow(name, &value(name).integer);
  return error;
}

// Batch sizes are equal or 1, as in NumPy's rules.
std::string CheckBatch(Call* call) {
  const char* first = "query";
  int64_t batch = 1;
  for (int i : {kQuery, kKey, kValue}) {
    const Dims& dims = call->operands[i].dims;
    if (dims[0] == 1 || dims[0] == batch) continue;
    const char* name = call->operation.operands[i].name;
    if (batch != 1)
      return WrongShape(name,
                        "the batch size of `" + std::string(first) + "`, " +
                            std::to_string(batch) + ", or 1",
                        dims);
    batch = dims[0];
    first = name;
  }
  call->sizes['B'] = batch;
  return "";
}

// `splits`, batch + 1 of them, ascend from 0 to the number of rows of `of`.
// Sets the largest length.
std::string CheckSplits(const char* name, const int64_t* splits, int64_t batch,
                        const char* of, int64_t rows, int64_t* longest) {
  *longest = 0;
  if (splits[0] != 0)
    return WrongValue(name, "ascending from 0", splits[0], "[0]");
  for (int64_t b = 0; b < batch; ++b) {
    if (splits[b + 1] < splits[b])
      return WrongValue(
          name, "ascending", splits[b + 1],
          At(b) + "=" + std::to_string(splits[b]) + " and " + name + At(b + 1));
    *longest = std::max(*longest, splits[b + 1] - splits[b]);
  }
  if (splits[batch] != rows)
    return WrongValue(name,
                      "ascending to the number of rows of `" + std::string(of) +
                          "`, " + std::to_string(rows),
                      splits[batch], At(batch));
  return "";
}

// The sequences of a side of the call: those of queries, or of keys.
struct Side {
  char length;
  int rows, mask, lengths, splits;
};
constexpr Side kSides[] = {
    {'T', kQuery, Of("query_mask"), Of("query_lengths"), kQuerySplits},
    {'S', kKey, Of("key_mask"), Of("key_lengths"), kKeySplits}};

// Batch and lengths of a call with axes for them.
std::string CheckDense(Call* call) {
  const Operation& operation = call->operation;
  std::string error = CheckBatch(call);
  for (const Side& side : kSides)
    call->sizes[side.length] = call->operands[side.rows].dims[1];
  for (const Side& side : kSides) {
    if (error.empty()) error = CheckSizes(*call, side.mask);
    if (error.empty()) error = CheckSizes(*call, side.lengths);
    Array& array = call->operands[side.lengths];
    if (!error.empty() || !array.given) continue;
    const int64_t batch = call->sizes['B'];
    const int32_t* const lengths = CopyOf<int32_t>(&array, batch);
    error = CheckLengths(operation.operands[side.lengths].name, lengths, batch,
                         operation.operands[side.rows].name,
                         call->sizes[side.length]);
  }
  return error;
}

// Batch and lengths of a call that has them in its splits.
std::string CheckPacked(Call* call) {
  const Operation& operation = call->operation;
  for (int i = 0; i < operation.operands.size(); ++i)
    if (operation.operands[i].Is(kNotPacked) && call->operands[i].given)
      return WrongShape(operation.operands[i].name,
                        "no place in a packed call: `query_splits` and "
                        "`key_splits` are its lengths",
                        call->operands[i].dims);
  const Dims& splits = call->operands[kQuerySplits].dims;
  if (splits.size() != 1 || splits[0] < 1)
    return WrongShape("query_splits", "shape (batch + 1,)", splits);
  call->sizes['B'] = splits[0] - 1;
  std::string error = CheckSizes(*call, kKeySplits);
  if (!error.empty()) return error;
  for (const Side& side : kSides)
    CopyOf<int64_t>(&call->operands[side.splits], splits[0]);
  for (const Side& side : kSides)
    if (error.empty())
      error = CheckSplits(
          operation.operands[side.splits].name,
          static_cast<const int64_t*>(call->operands[side.splits].data),
          call->sizes['B'], operation.operands[side.rows].name,
          call->operands[side.rows].dims[0], &call->sizes[side.length]);
  call->rows = call->operands[kQuery].dims[0];
  return error;
}

// Heads and sizes: the last two axes, dense or packed.
std::string CheckHeads(Call* call) {
  const Dims& query = call->operands[kQuery].dims;
  const Dims& key = call->operands[kKey].dims;
  const Dims& value = call->operands[kValue].dims;
  const auto heads = [](const Dims& dims) { return dims[dims.size() - 2]; };
  const int64_t num_heads = call->sizes['N'] = heads(query);
  const int64_t head_dim = call->sizes['H'] = query.back();
  const int64_t num_kv_heads = call->sizes['K'] = heads(key);
  call->sizes['V'] = value.back();
  if (num_heads < 1 || head_dim < 1)
    return WrongShape("query", "at least one head of at least one feature",
                      query);
  if (num_kv_heads < 1 || num_heads % num_kv_heads != 0)
    return WrongShape("key",
                      "a number of heads that divides the " +
                          std::to_string(num_heads) + " heads of `query`",
                      key);
  if (key.back() != head_dim)
    return WrongShape(
        "key", "the head size of `query`, " + std::to_string(head_dim), key);
  // The batch size has been checked.
  const size_t skip = call->packed ? 0 : 1;
  if (!std::equal(key.begin() + skip, key.end() - 1, value.begin() + skip,
                  value.end() - 1))
    return WrongShape("value",
                      std::string(call->packed ? "the rows" : "the length") +
                          " and heads of `key`, " + ToString(key),
                      value);
  if (value.back() < 1)
    return WrongShape("value", "at least one feature", value);
  return "";
}

std::string TooLong(const char* name, const Dims& dims, const char* what) {
  return WrongShape(name, "at most " + std::to_string(kLongest) + " " + what,
                    dims);
}

std::string CheckLongest(const Call& call) {
  const Dims& query = call.operands[kQuery].dims;
  const Dims& key = call.operands[kKey].dims;
  const Dims& value = call.operands[kValue].dims;
  if (call.sizes['T'] > kLongest) return TooLong("query", query, "positions");
  if (call.sizes['S'] > kLongest) return TooLong("key", key, "positions");
  // Scratch memory has rows of them, tens for each thread.
  if (call.sizes['H'] > kLongest)
    return TooLong("query", query, "features per head");
  if (call.sizes['V'] > kLongest)
    return TooLong("value", value, "features per head");
  bool countable = Countable(query) && Countable(key) && Countable(value) &&
                   Countable(call.DimsOf("B T N V")) &&
                   Countable(call.DimsOf("B N T 2"));
  for (const char* axes : {"B N T S", "B T N H", "B S K H", "B S K V"})
    countable = countable && Countable(call.DimsOf(axes, /*padded=*/true));
  if (countable) return "";
  return WrongShape("query",
                    "sizes whose products with those of `key`, " +
                        ToString(key) + ", and `value`, " + ToString(value) +
                        ", fit into 64 bits",
                    query);
}

std::string Check(Call* call) {
  const Array& query_splits = call->operands[kQuerySplits];
  const Array& key_splits = call->operands[kKeySplits];
  if (query_splits.given != key_splits.given)
    return query_splits.given
               ? WrongShape("query_splits", "`key_splits` beside it",
                            query_splits.dims)
               : WrongShape("key_splits", "`query_splits` beside it",
                            key_splits.dims);
  call->packed = query_splits.given;
  std::string error = CheckNumbers(call);
  for (int i : {kQuery, kKey, kValue})
    if (error.empty()) error = CheckRank(*call, i);
  if (error.empty())
    error = call->packed ? CheckPacked(call) : CheckDense(call);
  if (error.empty()) error = CheckHeads(call);
  if (error.empty()) error = CheckLongest(*call);
  for (int i = kValue + 1; i < call->operation.operands.size(); ++i)
    if (error.empty()) error = CheckSizes(*call, i);
  return error;
}

// ------------------------------------------------------------------ the call

template <typename Args, bool (*kKernel)(const Args&, int)>
Outcome Run(const Call& call, const Output* outputs, int threads) {
  Args args = Filled<Args>(call, outputs);
  const Call::Sizes& n = call.sizes;
  args.shape = {n['B'], n['T'], n['S'], n['N'], n['K'], n['H'], n['V']};
  if (kKernel(args, threads)) return {Ending::kDone, ""};
  return OutOfMemory(call.operation);
}

constexpr char kUnknownSizes[] =
    "hw3tf's attention knows no sizes under XLA that depend on values, "
    "as after tf.boolean_mask. Pass masks or lengths instead";

}  // namespace

constexpr Operation kAttention = {
    "attention",
    "attention_forward",
    "Hw3tfAttention",
    "hw3tf_attention_2",
    "attention",
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
    kUnknownSizes,
    kTypes<Forward>,
    kAxes,
    kShared<Forward>,
    std::size(kShared<Forward>),
    /*packs=*/true,
    /*least_numbers=*/3,
    kSharedAttributes<Forward>,
    kForwardResults,
    CheckTypes,
    Check,
    Run<Forward, AttentionForward>,
};

constexpr Operation kAttentionGrad = {
    "attention_grad",
    "attention_backward",
    "Hw3tfAttentionGrad",
    "hw3tf_attention_grad_2",
    "the gradient of attention",
    "Returns (grad_query, grad_key, grad_value, grad_bias) from what\n"
    "attention_forward took and returned, and the gradients of its output and\n"
    "logsumexp (None = zero). Without bias, or with skip_grad_bias, None\n"
    "stands for grad_bias.",
    kUnknownSizes,
    kTypes<Backward>,
    kAxes,
    kBackwardOperands,
    std::size(kShared<Backward>),
    /*packs=*/true,
    /*least_numbers=*/3,
    kBackwardAttributes,
    kBackwardResults,
    CheckTypes,
    Check,
    Run<Backward, AttentionBackward>,
};

static_assert(IsWellFormed(kAttention));
static_assert(IsWellFormed(kAttentionGrad));

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
