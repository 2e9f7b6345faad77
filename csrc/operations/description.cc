#include "operations/description.h"

#include <cstring>

#include "operations/attention.h"
#include "operations/integer_rnn.h"
#include "operations/rnn.h"

namespace hw3tf {
namespace {

// "batch, timesteps, features"
std::string AxisNames(const Operation& operation, const char* axes) {
  std::string names;
  for (const char* at = axes; *at; ++at)
    for (const Axis& axis : operation.axes)
      if (axis.letter == *at)
        names += (names.empty() ? "" : ", ") + std::string(axis.name);
  return names;
}

}  // namespace

const char* Name(Element element) {
  constexpr const char* kNames[] = {"bool",    "int8",   "uint8",   "int16",
                                    "int32",   "int64",  "float32", "bfloat16",
                                    "float16", "float64"};
  return kNames[static_cast<int>(element)];
}

int SizeOf(Element element) {
  constexpr int kSizes[] = {1, 1, 1, 2, 4, 8, 4, 2, 2, 8};
  return kSizes[static_cast<int>(element)];
}

List<const Operation*> Operations() {
  static constexpr const Operation* kOperations[] = {
      &kAttention,     &kAttentionGrad,      &kIntegerRnn,
      &kLstmOperation, &kLstmGrad,           &kGruOperation,
      &kGruGrad,       &kSimpleRnnOperation, &kSimpleRnnGrad};
  return kOperations;
}

Call::Call(const Operation& described) : operation(described) {
  for (int i = 0; i < operation.attributes.size(); ++i)
    attributes[i] = operation.attributes[i].fallback.value_or(Value{});
}

Element ElementOf(const Element* types, Type type) {
  switch (type) {
    case Type::kBool:
      return Element::kBool;
    case Type::kInt32:
      return Element::kInt32;
    case Type::kInt64:
      return Element::kInt64;
    default:
      return types[static_cast<int>(type)];
  }
}

Element Call::ElementOf(Type type) const {
  return hw3tf::ElementOf(types, type);
}

Dims Call::DimsOf(const char* axes, bool padded) const {
  const int op_name = OpNameAttribute(operation);
  const bool sequences = op_name >= 0 && attributes[op_name].integer != 0;
  const bool one_axis = packed && !padded;
  Dims dims;
  dims.reserve(4);
  for (const char* at = axes; *at; ++at) {
    const bool skipped = at[0] == '(' && !sequences;
    if (skipped) at += 2;
    if (*at == '+')
      dims.back() += *++at - '0';
    else if (*at >= '0' && *at <= '9')
      dims.push_back(*at - '0');
    else if (*at < 'A' || *at > 'Z')
      continue;
    else if (one_axis && *at == 'B' && at[1] == ' ')
      continue;
    else
      dims.push_back(one_axis && *at == 'T' ? rows : sizes[*at]);
  }
  return dims;
}

Dims Call::ResultDims(int result) const {
  const Result& described = operation.results[result];
  if (!described.like) return DimsOf(described.axes);
  if (!ResultGiven(result)) return {0};
  return operands[IndexIn(operation.operands, described.like)].dims;
}

bool Call::ResultGiven(int result) const {
  const Result& described = operation.results[result];
  if (described.unless &&
      attributes[IndexIn(operation.attributes, described.unless)].integer != 0)
    return false;
  return !described.like ||
         operands[IndexIn(operation.operands, described.like)].given;
}

const TypeParameter& ParameterOf(const Operation& operation, Type type) {
  for (const TypeParameter& parameter : operation.types)
    if (parameter.type == type) return parameter;
  return operation.types[0];
}

const char* NameOf(const Operation& operation, Type type) {
  if (static_cast<int>(type) < kTypeParameters)
    return ParameterOf(operation, type).name;
  return Name(ElementOf(nullptr, type));
}

int OpNameAttribute(const Operation& operation) {
  for (int i = 0; i < operation.attributes.size(); ++i)
    if (operation.attributes[i].carrier == Carrier::kOpName) return i;
  return -1;
}

std::string WordsOf(const Attribute& attribute) {
  std::string words;
  for (const char* word : attribute.words)
    words += (words.empty() ? "'" : ", '") + std::string(word) + "'";
  return words;
}

std::string ParseWord(const Attribute& attribute, const std::string& received,
                      Value* value) {
  for (int i = 0; i < attribute.words.size(); ++i) {
    if (received != attribute.words[i]) continue;
    *value = Integer(i);
    return "";
  }
  return "`" + std::string(attribute.name) + "` must be one of " +
         WordsOf(attribute) + ". Received: " + attribute.name + "='" +
         received + "'";
}

std::string CheckRank(const Call& call, int operand) {
  const auto& [name, type, axes, traits, put] =
      call.operation.operands[operand];
  const Dims& dims = call.operands[operand].dims;
  const size_t rank = (std::strlen(axes) + 1) / 2 - (call.packed ? 1 : 0);
  if (dims.size() == rank) return "";
  std::string expected = std::to_string(rank) + " axes";
  const std::string names = AxisNames(call.operation, axes);
  expected += call.packed ? " in a packed call: (total_" +
                                names.substr(strlen("batch, "))
                          : ": (" + names;
  return WrongShape(name, expected + ")", dims);
}

std::string CheckSizes(const Call& call, int operand) {
  const Operand& described = call.operation.operands[operand];
  const Array& array = call.operands[operand];
  if (!array.given) return "";
  if (described.Is(kBroadcasts)) {
    const Dims wanted = call.DimsOf(described.axes, /*padded=*/true);
    if (BroadcastsTo(wanted, array.dims)) return "";
    return WrongBroadcast(described.name,
                          AxisNames(call.operation, described.axes), wanted,
                          array.dims);
  }
  Dims expected = call.DimsOf(described.axes);
  if (described.Is(kOneBatch) && !array.dims.empty() && array.dims[0] == 1)
    expected[0] = 1;
  return CheckDims(described.name, array.dims, expected);
}

std::string CheckElement(const Operation& operation, const Element* types,
                         int operand, const std::string& received) {
  const auto& [name, type, axes, traits, put] = operation.operands[operand];
  const std::string wanted = Name(ElementOf(types, type));
  if (received == wanted) return "";
  std::string expected = "dtype " + wanted;
  if (static_cast<int>(type) < kTypeParameters) {
    const TypeParameter& parameter = ParameterOf(operation, type);
    expected += parameter.as;
    if (expected.back() == '=')
      expected += Name(ElementOf(types, parameter.from));
  }
  return WrongDType(name, expected, received);
}

Outcome OutOfMemory(const Operation& operation) {
  return {Ending::kOutOfMemory, "out of memory for the scratch arrays of " +
                                    std::string(operation.title)};
}

}  // namespace hw3tf
