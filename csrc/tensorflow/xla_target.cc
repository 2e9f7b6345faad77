#include "tensorflow/xla_target.h"

#include <algorithm>
#include <cstring>

#include "operations/attention.h"
#include "operations/integer_rnn.h"
#include "operations/rnn.h"

namespace hw3tf {
namespace {

double NumberOf(int64_t bits) {
  double number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

bool IsWord(const Attribute& attribute) {
  return attribute.carrier != Carrier::kScalarInput &&
         attribute.carrier != Carrier::kNotRead;
}

// What stands before the ranks.
struct Header {
  int operands = 0;
  int threads = 0;
  const int64_t* ranks = nullptr;
};

// Returns whether the header is one that this version can read: a later one may
// have more attributes, operands and types.
bool ReadHeader(const int64_t* word, Call* call, Header* header) {
  const Operation& operation = call->operation;
  int64_t attributes = *word++;
  header->operands = static_cast<int>(*word++);
  if (header->operands > operation.operands.size()) return false;
  for (const TypeParameter& type : operation.types) {
    if (*word >= type.elements.size()) return false;
    call->types[static_cast<int>(type.type)] =
        type.elements[static_cast<int>(*word++)];
  }
  header->threads = static_cast<int>(*word++);
  for (int i = 0; i < operation.attributes.size() && attributes > 0; ++i) {
    const Attribute& attribute = operation.attributes[i];
    if (!IsWord(attribute)) continue;
    call->attributes[i] = attribute.kind == Kind::kNumber
                              ? Number(NumberOf(*word))
                              : Integer(*word);
    ++word, --attributes;
  }
  header->ranks = word;
  return attributes == 0;
}

// Scalars, then the operands. Returns whether the sizes in the header are those
// at run time: the header has bounds, which are larger, where sizes depend on
// values.
bool ReadArrays(const Header& header, const void** arrays, Call* call) {
  const Operation& operation = call->operation;
  for (int i = 0; i < operation.attributes.size(); ++i)
    if (operation.attributes[i].carrier == Carrier::kScalarInput)
      call->attributes[i].integer = *static_cast<const int64_t*>(*arrays++);
  const int missing = operation.operands.size() - header.operands;
  const int64_t* const bounds = header.ranks + header.operands;
  const int64_t* sizes = bounds;
  for (int i = 0; i < header.operands; ++i) {
    const int64_t rank = header.ranks[i];
    if (rank < 0) continue;
    const bool is_shared = i < operation.shared_operands - missing;
    Array& array = call->operands[is_shared ? i : i + missing];
    array.given = true;
    array.dims.assign(sizes, sizes + rank);
    array.strides = ContiguousStrides(array.dims);
    array.data = *arrays++;
    sizes += rank;
  }
  return std::equal(bounds, sizes, static_cast<const int64_t*>(*arrays));
}

template <const Operation& kOperation>
void Target(void* results, const void** arrays, const char*, size_t,
            XlaCustomCallStatus_* status) {
  const auto* header = static_cast<const int64_t*>(*arrays);
  RunTarget(kOperation, header, arrays + 1, results, status);
}

template <const Operation& kOperation, auto kHeaderOfVersion1>
void TargetOfVersion1(void* results, const void** arrays, const char*, size_t,
                      XlaCustomCallStatus_* status) {
  const std::vector<int64_t> header =
      kHeaderOfVersion1(static_cast<const int64_t*>(*arrays));
  RunTarget(kOperation, header.data(), arrays + 1, results, status);
}

std::string RegisterTargets() {
  const struct {
    const char* name;
    XlaTarget target;
  } targets[] = {
      {kAttention.target, Guarded<Target<kAttention>>},
      {kAttentionGrad.target, Guarded<Target<kAttentionGrad>>},
      {kIntegerRnn.target, Guarded<Target<kIntegerRnn>>},
      {kLstmOperation.target, Guarded<Target<kLstmOperation>>},
      {kLstmGrad.target, Guarded<Target<kLstmGrad>>},
      {kGruOperation.target, Guarded<Target<kGruOperation>>},
      {kGruGrad.target, Guarded<Target<kGruGrad>>},
      {kSimpleRnnOperation.target, Guarded<Target<kSimpleRnnOperation>>},
      {kSimpleRnnGrad.target, Guarded<Target<kSimpleRnnGrad>>},
      {"hw3tf_attention_1",
       Guarded<TargetOfVersion1<kAttention, AttentionHeaderOfVersion1>>},
      {"hw3tf_attention_grad_1",
       Guarded<
           TargetOfVersion1<kAttentionGrad, AttentionGradHeaderOfVersion1>>},
      {"hw3tf_integer_rnn_1",
       Guarded<TargetOfVersion1<kIntegerRnn, IntegerRnnHeaderOfVersion1>>},
  };
  for (const auto& [name, target] : targets) {
    std::string why = RegisterXlaTarget(name, target);
    if (!why.empty()) return why;
  }
  return "";
}

}  // namespace

void RunTarget(const Operation& operation, const int64_t* header,
               const void** arrays, void* results,
               XlaCustomCallStatus_* status) {
  Call call(operation);
  Header read;
  if (!ReadHeader(header, &call, &read))
    return SetXlaError(status,
                       "a later hw3tf has made this graph: its custom call has "
                       "options that this one does not know");
  if (!ReadArrays(read, arrays, &call))
    return SetXlaError(status, operation.unknown_sizes);
  const std::string error = operation.check(&call);
  if (!error.empty()) return SetXlaError(status, error);
  // A single result is no array of pointers.
  void** const memory =
      operation.results.size() > 1 ? static_cast<void**>(results) : &results;
  Output outputs[kMostResults];
  for (int i = 0, at = 0; i < operation.results.size(); ++i)
    if (call.ResultGiven(i)) outputs[i] = {call.ResultDims(i), memory[at++]};
  const Outcome outcome = operation.run(call, outputs, read.threads);
  if (outcome.ending != Ending::kDone) SetXlaError(status, outcome.message);
}

}  // namespace hw3tf

// For hw3tf/ops/xla_probe.py: both return "" or what is wrong.
extern "C" __attribute__((visibility("default"))) const char*
Hw3tfRegisterXlaTargets() {
  static const std::string error = hw3tf::RegisterTargets();
  return error.c_str();
}

extern "C" __attribute__((visibility("default"))) const char*
Hw3tfXlaStatusError() {
  return hw3tf::XlaStatusError().c_str();
}
