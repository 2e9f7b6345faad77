#include "tensorflow/op.h"

#include <algorithm>

#include "operations/attention.h"
#include "operations/integer_rnn.h"
#include "operations/rnn.h"
#include "tensorflow/attributes.h"

namespace hw3tf {
namespace {

int CountOf(const Operation& operation, Carrier carrier) {
  return static_cast<int>(std::count_if(operation.attributes.begin(),
                                        operation.attributes.end(),
                                        [&](const Attribute& attribute) {
                                          return attribute.carrier == carrier;
                                        }));
}

// -------------------------------------------------------------- definition

// "T: {float, double}"
std::string SpecOf(const TypeParameter& type) {
  std::string spec;
  for (Element element : type.elements)
    spec += (spec.empty() ? "" : ", ") + std::string(DataTypeName(element));
  return std::string(type.name) + ": {" + spec + "}";
}

// "window_before: int = -1"
std::string SpecOf(const Attribute& attribute) {
  const std::string name = std::string(attribute.name) + ": ";
  const int64_t number = attribute.fallback->integer;
  switch (attribute.kind) {
    case Kind::kBool:
      return name + "bool = " + (number ? "true" : "false");
    case Kind::kIntList:
      return name + "list(int) = []";
    case Kind::kWord:
      return name + "{" + WordsOf(attribute) + "} = '" +
             attribute.words[static_cast<int>(number)] + "'";
    default:
      return name + "int = " + std::to_string(number);
  }
}

std::string SpecOf(const Operation& operation, const char* name, Type type) {
  return std::string(name) + ": " + NameOf(operation, type);
}

// --------------------------------------------------------------------- run

// Scalars and `numbers` become attributes of the call.
void ReadNumbers(const OpKernel& kernel, OpRun* run, Call* call) {
  const Operation& operation = kernel.operation;
  int input = operation.shared_operands;
  for (int i = 0; i < operation.attributes.size(); ++i) {
    const Attribute& attribute = operation.attributes[i];
    if (attribute.carrier != Carrier::kScalarInput) continue;
    const Tensor scalar = run->Input(input++);
    if (!run->Ok()) return;
    run->Require(CheckDims(attribute.name, DimsOf(scalar), {}));
    if (!run->Ok()) return;
    call->attributes[i].integer =
        *static_cast<const int64_t*>(TF_TensorData(scalar.get()));
  }
  const int count = CountOf(operation, Carrier::kNumbers);
  if (count == 0) return;
  const Tensor numbers = run->Input(input);
  if (!run->Ok()) return;
  const Dims dims = DimsOf(numbers);
  if (dims.size() != 1 || dims[0] < operation.least_numbers || dims[0] > count)
    run->Require(CheckDims("numbers", dims, {count}));
  if (!run->Ok()) return;
  const auto* values = static_cast<const double*>(TF_TensorData(numbers.get()));
  int64_t at = 0;
  for (int i = 0; i < operation.attributes.size() && at < dims[0]; ++i)
    if (operation.attributes[i].carrier == Carrier::kNumbers)
      call->attributes[i].number = values[at++];
}

// An optional operand that is not given is empty, of rank 1.
void ReadOperand(const Operand& operand, const Tensor& tensor, Array* array) {
  array->dims = DimsOf(tensor);
  array->given = !operand.Is(kOptional) || array->dims != Dims{0};
  array->data = TF_TensorData(tensor.get());
  if (operand.Is(kStrided) || operand.Is(kBroadcasts))
    array->strides = ContiguousStrides(array->dims);
}

// Memory for a result. An operand that only this op reads may give its own: the
// lines are in the cache, and nothing is allocated.
Tensor Allocate(int result, const Dims& dims, Tensor* tensors, OpRun* run,
                Call* call) {
  const Operation& operation = call->operation;
  const auto& [name, type, axes, like, in_place, put, unless] =
      operation.results[result];
  if (in_place) {
    const int operand = IndexIn(operation.operands, in_place);
    if (call->operands[operand].dims == dims) {
      Tensor output = run->OutputInPlace(result, InputOf(operation, operand),
                                         &tensors[operand]);
      if (run->Ok())
        call->operands[operand].data = TF_TensorData(tensors[operand].get());
      return output;
    }
  }
  return run->Output(result, call->ElementOf(type), dims);
}

}  // namespace

int InputOf(const Operation& operation, int operand) {
  if (operand < operation.shared_operands) return operand;
  const int numbers = CountOf(operation, Carrier::kNumbers) > 0 ? 1 : 0;
  return operand + CountOf(operation, Carrier::kScalarInput) + numbers;
}

OpRegistration Definition(const Operation& operation, bool suffixed) {
  OpRegistration op;
  op.name = operation.op;
  for (const TypeParameter& type : operation.types)
    op.attrs.push_back(SpecOf(type));
  for (const Attribute& attribute : operation.attributes) {
    if (attribute.carrier == Carrier::kAttribute ||
        attribute.carrier == Carrier::kNotRead)
      op.attrs.push_back(SpecOf(attribute));
    if (attribute.carrier == Carrier::kOpName && suffixed)
      op.name += attribute.suffix;
  }
  const auto add_operands = [&](int begin, int end) {
    for (int i = begin; i < end; ++i)
      op.inputs.push_back(SpecOf(operation, operation.operands[i].name,
                                 operation.operands[i].type));
  };
  add_operands(0, operation.shared_operands);
  for (const Attribute& attribute : operation.attributes)
    if (attribute.carrier == Carrier::kScalarInput)
      op.inputs.push_back(std::string(attribute.name) + ": int64");
  if (CountOf(operation, Carrier::kNumbers) > 0)
    op.inputs.push_back("numbers: double");
  add_operands(operation.shared_operands, operation.operands.size());
  for (const Result& result : operation.results)
    op.outputs.push_back(SpecOf(operation, result.name, result.type));
  for (Element element : ParameterOf(operation, Type::kT).elements)
    op.types.push_back(DataTypeOf(element));
  op.compute = Guarded<RunKernel>;
  op.destroy = DestroyKernel;
  return op;
}

OpKernel* CreateKernel(TF_OpKernelConstruction* construction,
                       const Operation& operation, bool suffixed) {
  auto kernel = std::make_unique<OpKernel>(operation);
  Attributes attributes(construction);
  for (const TypeParameter& type : operation.types)
    kernel->types[static_cast<int>(type.type)] =
        ElementOf(attributes.Type(type.name));
  for (int i = 0; i < operation.attributes.size(); ++i) {
    const Attribute& attribute = operation.attributes[i];
    Value* const value = &kernel->attributes[i];
    *value = attribute.fallback.value_or(Value{});
    if (attribute.carrier == Carrier::kOpName) *value = Integer(suffixed);
    if (attribute.carrier != Carrier::kAttribute) continue;
    if (attribute.kind == Kind::kBool)
      *value = Integer(attributes.Bool(attribute.name));
    else if (attribute.kind == Kind::kWord)
      attributes.Require(
          ParseWord(attribute, attributes.String(attribute.name), value));
    else
      *value = Integer(attributes.Int(attribute.name));
  }
  if (attributes.Ok()) attributes.Require(operation.check_types(kernel->types));
  return kernel.release();
}

void RunKernel(void* state, TF_OpKernelContext* context) {
  auto* kernel = static_cast<OpKernel*>(state);
  const Operation& operation = kernel->operation;
  OpRun run(context);
  Call call(operation);
  std::copy(std::begin(kernel->types), std::end(kernel->types), call.types);
  std::copy(std::begin(kernel->attributes), std::end(kernel->attributes),
            call.attributes);
  Tensor tensors[kMostOperands];
  for (int i = 0; i < operation.operands.size(); ++i) {
    tensors[i] = run.Input(InputOf(operation, i));
    if (!run.Ok()) return;
    ReadOperand(operation.operands[i], tensors[i], &call.operands[i]);
  }
  ReadNumbers(*kernel, &run, &call);
  if (run.Ok()) run.Require(operation.check(&call));
  if (!run.Ok()) return;
  Output outputs[kMostResults];
  Tensor results[kMostResults];
  for (int i = 0; i < operation.results.size(); ++i) {
    outputs[i].dims = call.ResultDims(i);
    results[i] = Allocate(i, outputs[i].dims, tensors, &run, &call);
    if (!run.Ok()) return;
    outputs[i].data = TF_TensorData(results[i].get());
  }
  const Outcome outcome =
      operation.run(call, outputs, kernel->threads.Get(&run));
  if (outcome.ending == Ending::kOutOfMemory)
    run.Fail(TF_RESOURCE_EXHAUSTED, outcome.message);
  // Not OUT_OF_RANGE: Keras and tf.data take that for the end of the data.
  if (outcome.ending == Ending::kOverflow)
    run.Fail(TF_INVALID_ARGUMENT, outcome.message);
}

void DestroyKernel(void* kernel) { delete static_cast<OpKernel*>(kernel); }

namespace {

[[maybe_unused]] const bool registered =
    RegisterOperation<kAttention>() && RegisterOperation<kAttentionGrad>() &&
    RegisterOperation<kIntegerRnn>() &&
    RegisterOperation<kIntegerRnn, true>() &&
    RegisterOperation<kLstmOperation>() && RegisterOperation<kLstmGrad>() &&
    RegisterOperation<kGruOperation>() && RegisterOperation<kGruGrad>() &&
    RegisterOperation<kSimpleRnnOperation>() &&
    RegisterOperation<kSimpleRnnGrad>();

}  // namespace
}  // namespace hw3tf
