#include "jax/ffi_handlers.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "operations/attention.h"
#include "operations/integer_rnn.h"
#include "operations/rnn.h"

namespace hw3tf {
namespace {

// An error of the call: what `operation.check` and `run` say, or what does not
// fit the description at all, which hw3tf/ops/fronts/ffi.py prevents.
struct CallError {
  XLA_FFI_Error_Code code;
  std::string message;
};

[[noreturn]] void Fail(const std::string& message) {
  throw CallError{XLA_FFI_Error_Code_INVALID_ARGUMENT, message};
}

void Require(const std::string& error) {
  if (!error.empty()) Fail(error);
}

std::optional<Element> ElementOf(XLA_FFI_DataType dtype) {
  switch (dtype) {
    case XLA_FFI_DataType_PRED:
      return Element::kBool;
    case XLA_FFI_DataType_S8:
      return Element::kInt8;
    case XLA_FFI_DataType_U8:
      return Element::kUint8;
    case XLA_FFI_DataType_S16:
      return Element::kInt16;
    case XLA_FFI_DataType_S32:
      return Element::kInt32;
    case XLA_FFI_DataType_S64:
      return Element::kInt64;
    case XLA_FFI_DataType_F32:
      return Element::kFloat32;
    case XLA_FFI_DataType_BF16:
      return Element::kBfloat16;
    case XLA_FFI_DataType_F16:
      return Element::kFloat16;
    case XLA_FFI_DataType_F64:
      return Element::kFloat64;
    default:
      return std::nullopt;
  }
}

std::string NameOf(XLA_FFI_DataType dtype) {
  const std::optional<Element> element = ElementOf(dtype);
  return element ? Name(*element) : "one that no operand has";
}

// An array of the call: the axes that jax.vmap has added, then those that the
// operation knows. An added axis of size 1 serves every index, as in NumPy.
struct Buffer {
  const XLA_FFI_Buffer* buffer = nullptr;
  Dims added, dims;

  Buffer() = default;
  Buffer(const void* from, int64_t added_axes)
      : buffer(static_cast<const XLA_FFI_Buffer*>(from)) {
    const int64_t rank = buffer->rank;
    if (rank < added_axes) Fail("an array of a call lacks an axis of vmap");
    added.assign(buffer->dims, buffer->dims + added_axes);
    dims.assign(buffer->dims + added_axes, buffer->dims + rank);
  }

  // The data of the call `index`, of as many as `all` says.
  char* Data(const Dims& all, int64_t index) const {
    int64_t size = SizeOf(ElementOf(buffer->dtype).value_or(Element::kBool));
    int64_t at = 0, stride = 1;
    for (const int64_t d : dims) size *= d;
    for (size_t axis = added.size(); axis-- > 0;) {
      if (added[axis] > 1) at += index % all[axis] * stride;
      index /= all[axis];
      stride *= added[axis];
    }
    return static_cast<char*>(buffer->data) + at * size;
  }
};

// What the frame of a call holds, by the indices of the operation's table.
struct Frame {
  Buffer operands[kMostOperands];
  Buffer scalars[kMostAttributes];
  Buffer results[kMostResults];
  Dims added;  // the axes of jax.vmap
};

// ------------------------------------------------------------- attributes

template <typename T>
T Loaded(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

std::optional<Value> ValueOf(const XLA_FFI_Scalar& scalar) {
  switch (scalar.dtype) {
    case XLA_FFI_DataType_PRED:
      return Integer(Loaded<uint8_t>(scalar.value) != 0);
    case XLA_FFI_DataType_S64:
      return Integer(Loaded<int64_t>(scalar.value));
    case XLA_FFI_DataType_F64:
      return Number(Loaded<double>(scalar.value));
    default:
      return std::nullopt;
  }
}

// The attribute `name` as it stands in the frame, or nullptr.
const void* Find(const XLA_FFI_Attrs& attrs, std::string_view name,
                 XLA_FFI_AttrType* type) {
  for (int64_t i = 0; i < attrs.size; ++i) {
    if (name != std::string_view(attrs.names[i]->ptr, attrs.names[i]->len))
      continue;
    *type = attrs.types[i];
    return attrs.attrs[i];
  }
  return nullptr;
}

// "given" is not of the table: bit i says that operand i is among the arrays.
int64_t ReadGiven(const XLA_FFI_Attrs& attrs) {
  XLA_FFI_AttrType type;
  const void* given = Find(attrs, "given", &type);
  if (!given || type != XLA_FFI_AttrType_SCALAR) Fail("a call lacks `given`");
  return ValueOf(*static_cast<const XLA_FFI_Scalar*>(given))
      .value_or(Value{})
      .integer;
}

void ReadAttributes(const XLA_FFI_Attrs& attrs, Call* call) {
  const List<Attribute>& described = call->operation.attributes;
  for (int i = 0; i < described.size(); ++i) {
    XLA_FFI_AttrType type;
    const void* found = Find(attrs, described[i].name, &type);
    if (!found) continue;
    if (type == XLA_FFI_AttrType_STRING) {
      const auto& word = *static_cast<const XLA_FFI_ByteSpan*>(found);
      Require(ParseWord(described[i], std::string(word.ptr, word.len),
                        &call->attributes[i]));
      continue;
    }
    std::optional<Value> value;
    if (type == XLA_FFI_AttrType_SCALAR)
      value = ValueOf(*static_cast<const XLA_FFI_Scalar*>(found));
    if (!value) Fail("`" + std::string(described[i].name) + "` has no type");
    call->attributes[i] = *value;
  }
}

// ----------------------------------------------------------------- arrays

// The axes that jax.vmap has added are those of the first operand beyond the
// ones that it always has.
int64_t AddedAxes(const Call& call, const XLA_FFI_Buffer& first) {
  const char* const axes = call.operation.operands[0].axes;
  const auto rank = static_cast<int64_t>((std::strlen(axes) + 1) / 2);
  return std::max<int64_t>(0, first.rank - rank);
}

// Of an array that is given: the axes of jax.vmap are those of the call, or 1
// if it may serve all.
void CheckAdded(const Buffer& buffer, const Frame& frame, bool may_be_1) {
  if (!buffer.buffer) return;
  for (size_t axis = 0; axis < frame.added.size(); ++axis)
    if (buffer.added[axis] != frame.added[axis] &&
        !(may_be_1 && buffer.added[axis] == 1))
      Fail("arrays of a call have different axes of vmap");
}

// Scalars that are inputs come first, as two words of 32 bits: JAX has no
// integers of 64 bits unless it is told to. Then the operands that are given.
void ReadFrame(const XLA_FFI_CallFrame& frame, const Call& call, int64_t given,
               Frame* read) {
  const Operation& operation = call.operation;
  int64_t scalars = 0, next = 0;
  for (const Attribute& attribute : operation.attributes)
    scalars += attribute.carrier == Carrier::kScalarInput;
  int64_t wanted = scalars;
  for (int i = 0; i < operation.operands.size(); ++i) {
    wanted += given >> i & 1;
    if (!operation.operands[i].Is(kOptional) && !(given >> i & 1))
      Fail("`" + std::string(operation.operands[i].name) + "` is not given");
  }
  if (frame.args.size != wanted || frame.rets.size != operation.results.size())
    Fail("a call of " + std::string(operation.title) +
         " has another number of arrays than its description");
  const auto& first =
      *static_cast<const XLA_FFI_Buffer*>(frame.args.args[scalars]);
  const int64_t added = AddedAxes(call, first);
  for (int i = 0; i < operation.attributes.size(); ++i)
    if (operation.attributes[i].carrier == Carrier::kScalarInput) {
      const Buffer& scalar = read->scalars[i] =
          Buffer(frame.args.args[next++], added);
      if (scalar.buffer->dtype != XLA_FFI_DataType_S32 ||
          scalar.dims != Dims{2})
        Fail("`" + std::string(operation.attributes[i].name) +
             "` must be two words of int32");
    }
  for (int i = 0; i < operation.operands.size(); ++i)
    if (given >> i & 1)
      read->operands[i] = Buffer(frame.args.args[next++], added);
  for (int i = 0; i < operation.results.size(); ++i)
    read->results[i] = Buffer(frame.rets.rets[i], added);
  read->added = read->results[0].added;
  for (const Buffer& operand : read->operands) CheckAdded(operand, *read, true);
  for (const Buffer& scalar : read->scalars) CheckAdded(scalar, *read, true);
  for (const Buffer& result : read->results) CheckAdded(result, *read, false);
}

// Without integers of 64 bits, JAX has their words, twice as many, or, where
// they are positions, integers of 32 bits.
bool IsInWords(Type type, const Buffer& buffer) {
  return type == Type::kInt64 && buffer.buffer->dtype == XLA_FFI_DataType_S32;
}

// The types of the call from those of the operands that decide upon them.
void ReadTypes(const Frame& frame, Call* call) {
  const Operation& operation = call->operation;
  for (const TypeParameter& type : operation.types) {
    if (!type.by) continue;
    const Buffer& by = frame.operands[IndexIn(operation.operands, type.by)];
    std::optional<Element> element;
    if (by.buffer) element = ElementOf(by.buffer->dtype);
    const bool known = element && std::count(type.elements.begin(),
                                             type.elements.end(), *element) > 0;
    if (!known)
      Fail("`" + std::string(type.by) + "` has a dtype that " +
           operation.title + " does not know");
    call->types[static_cast<int>(type.type)] = *element;
  }
  for (const TypeParameter& type : operation.types)
    if (!type.by)
      call->types[static_cast<int>(type.type)] =
          type.derive(call->ElementOf(type.from));
  for (int i = 0; i < operation.operands.size(); ++i) {
    const Buffer& buffer = frame.operands[i];
    if (buffer.buffer && !IsInWords(operation.operands[i].type, buffer))
      Require(CheckElement(operation, call->types, i,
                           NameOf(buffer.buffer->dtype)));
  }
  Require(operation.check_types(call->types));
  for (int i = 0; i < operation.results.size(); ++i) {
    const auto& [name, type, axes, like, in_place, put, unless] =
        operation.results[i];
    const Buffer& buffer = frame.results[i];
    const Element wanted = call->ElementOf(type);
    if (!IsInWords(type, buffer) && ElementOf(buffer.buffer->dtype) != wanted)
      Require(WrongDType(name, std::string("dtype ") + Name(wanted),
                         NameOf(buffer.buffer->dtype)));
  }
}

// The sizes of an array, in elements of its own type.
Dims DimsOf(Type type, bool positions, const Buffer& buffer) {
  Dims dims = buffer.dims;
  if (!positions && IsInWords(type, buffer) && !dims.empty()) dims.back() /= 2;
  return dims;
}

// Positions as int64, from int32.
void Widen(const Buffer& buffer, const char* from, Array* array) {
  int64_t count = 1;
  for (const int64_t d : buffer.dims) count *= d;
  array->copy.resize(static_cast<size_t>(count) * sizeof(int64_t));
  auto* to = reinterpret_cast<int64_t*>(array->copy.data());
  for (int64_t i = 0; i < count; ++i)
    to[i] = reinterpret_cast<const int32_t*>(from)[i];
  array->data = to;
}

// The arrays of one of the calls that jax.vmap makes.
void ReadOperands(const Frame& frame, int64_t index, Call* call) {
  const Operation& operation = call->operation;
  for (int i = 0; i < operation.attributes.size(); ++i)
    if (frame.scalars[i].buffer)
      call->attributes[i].integer =
          Loaded<int64_t>(frame.scalars[i].Data(frame.added, index));
  for (int i = 0; i < operation.operands.size(); ++i) {
    const Buffer& buffer = frame.operands[i];
    if (!buffer.buffer) continue;
    const Operand& operand = operation.operands[i];
    const bool widened =
        operand.Is(kPositions) && IsInWords(operand.type, buffer);
    Array& array = call->operands[i];
    array.given = true;
    array.dims = DimsOf(operand.type, widened, buffer);
    array.strides = ContiguousStrides(array.dims);
    const char* data = buffer.Data(frame.added, index);
    array.data = data;
    if (widened) Widen(buffer, data, &array);
  }
}

void RunOne(const Frame& frame, int64_t index, Call* call) {
  const Operation& operation = call->operation;
  ReadOperands(frame, index, call);
  Require(operation.check(call));
  Output outputs[kMostResults];
  for (int i = 0; i < operation.results.size(); ++i) {
    const Buffer& buffer = frame.results[i];
    const Result& result = operation.results[i];
    outputs[i].dims = call->ResultDims(i);
    Require(CheckDims(result.name, DimsOf(result.type, false, buffer),
                      outputs[i].dims));
    outputs[i].data = buffer.Data(frame.added, index);
  }
  const Outcome outcome = operation.run(*call, outputs, /*threads=*/0);
  if (outcome.ending == Ending::kOutOfMemory)
    throw CallError{XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, outcome.message};
  if (outcome.ending == Ending::kOverflow)
    throw CallError{XLA_FFI_Error_Code_OUT_OF_RANGE, outcome.message};
}

void Run(const Operation& operation, const XLA_FFI_CallFrame& frame) {
  Call call(operation);
  ReadAttributes(frame.attrs, &call);
  Frame read;
  ReadFrame(frame, call, ReadGiven(frame.attrs), &read);
  ReadTypes(read, &call);
  int64_t count = 1;
  for (const int64_t d : read.added) count *= d;
  for (int64_t index = 0; index < count; ++index) RunOne(read, index, &call);
}

// --------------------------------------------------------------- the calls

XLA_FFI_Error* ErrorOf(const XLA_FFI_CallFrame& frame, XLA_FFI_Error_Code code,
                       const char* message) noexcept {
  XLA_FFI_Error_Create_Args args = {};
  args.struct_size = sizeof args;
  args.message = message;
  args.errc = code;
  return frame.api->XLA_FFI_Error_Create(&args);
}

// XLA asks for the version of the interface before it registers a handler. What
// 0.1 has is in every later one.
bool AnswersVersion(const XLA_FFI_CallFrame& frame) noexcept {
  for (XLA_FFI_Extension_Base* extension = frame.extension_start; extension;
       extension = extension->next) {
    if (extension->type != XLA_FFI_Extension_Metadata) continue;
    XLA_FFI_Metadata* metadata =
        reinterpret_cast<XLA_FFI_Metadata_Extension*>(extension)->metadata;
    metadata->api_version.struct_size = sizeof metadata->api_version;
    metadata->api_version.extension_start = nullptr;
    metadata->api_version.major_version = 0;
    metadata->api_version.minor_version = 1;
    metadata->traits = 0;
    return true;
  }
  return false;
}

// No exception may reach XLA, which is compiled without.
template <const Operation& kOperation>
XLA_FFI_Error* Handler(XLA_FFI_CallFrame* frame) {
  constexpr char kNoMemory[] = "out of memory in a call of hw3tf";
  if (AnswersVersion(*frame)) return nullptr;
  try {
    Run(kOperation, *frame);
    return nullptr;
  } catch (const CallError& error) {
    return ErrorOf(*frame, error.code, error.message.c_str());
  } catch (const std::bad_alloc&) {
    return ErrorOf(*frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, kNoMemory);
  } catch (const std::length_error&) {
    return ErrorOf(*frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, kNoMemory);
  } catch (const std::exception& error) {
    return ErrorOf(*frame, XLA_FFI_Error_Code_INTERNAL, error.what());
  }
}

}  // namespace

List<FfiHandler> FfiHandlers() {
  static constexpr FfiHandler kHandlers[] = {
      {&kAttention, Handler<kAttention>},
      {&kAttentionGrad, Handler<kAttentionGrad>},
      {&kIntegerRnn, Handler<kIntegerRnn>},
      {&kLstmOperation, Handler<kLstmOperation>},
      {&kLstmGrad, Handler<kLstmGrad>},
      {&kGruOperation, Handler<kGruOperation>},
      {&kGruGrad, Handler<kGruGrad>},
      {&kSimpleRnnOperation, Handler<kSimpleRnnOperation>},
      {&kSimpleRnnGrad, Handler<kSimpleRnnGrad>}};
  return kHandlers;
}

}  // namespace hw3tf
