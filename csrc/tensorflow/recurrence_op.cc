// The TensorFlow ops Hw3tfIntegerRnn, the last state, and
// Hw3tfIntegerRnnSequence, all states. Two ops, because a shape function over
// the C API reads no attribute that would tell which.

#include <algorithm>

#include "checks/recurrence_checks.h"
#include "kernels/recurrence/recurrence.h"
#include "tensorflow/op_support.h"
#include "tensorflow/recurrence_operands.h"
#include "tensorflow/shape_builder.h"

namespace hw3tf {
namespace {

// The attributes, read once.
struct RecurrenceKernel {
  TF_DataType type = TF_INT32;  // T
  RecurrenceArgs args{};        // its dtypes and options
  SessionThreads threads;
};

IntDType IntDTypeOf(TF_DataType type) {
  switch (type) {
    case TF_BOOL:
      return IntDType::kBool;
    case TF_INT8:
      return IntDType::kInt8;
    case TF_UINT8:
      return IntDType::kUint8;
    case TF_INT16:
      return IntDType::kInt16;
    case TF_INT64:
      return IntDType::kInt64;
    default:
      return IntDType::kInt32;
  }
}

// Attributes of an op under construction; nothing more is read after a failure.
class Attributes {
 public:
  explicit Attributes(TF_OpKernelConstruction* construction)
      : construction_(construction), status_(NewStatus()) {}
  ~Attributes() {
    if (!Ok()) TF_OpKernelConstruction_Failure(construction_, status_.get());
  }

  bool Ok() const { return hw3tf::Ok(status_); }
  void Require(const std::string& error) {
    if (Ok() && !error.empty())
      TF_SetStatus(status_.get(), TF_INVALID_ARGUMENT, error.c_str());
  }

  TF_DataType Type(const char* name) {
    TF_DataType type = TF_INT32;
    if (Ok())
      TF_OpKernelConstruction_GetAttrType(construction_, name, &type,
                                          status_.get());
    return type;
  }
  bool Bool(const char* name) {
    TF_Bool value = 0;
    if (Ok())
      TF_OpKernelConstruction_GetAttrBool(construction_, name, &value,
                                          status_.get());
    return value != 0;
  }
  int64_t Int(const char* name) {
    int64_t value = 0;
    if (Ok())
      TF_OpKernelConstruction_GetAttrInt64(construction_, name, &value,
                                           status_.get());
    return value;
  }
  std::string String(const char* name) {
    int32_t list_size = 0, size = 0;
    if (Ok())
      TF_OpKernelConstruction_GetAttrSize(construction_, name, &list_size,
                                          &size, status_.get());
    std::string value(Ok() ? static_cast<size_t>(size) : 0, '\0');
    if (Ok())
      TF_OpKernelConstruction_GetAttrString(construction_, name, value.data(),
                                            value.size(), status_.get());
    return value;
  }

 private:
  TF_OpKernelConstruction* construction_;
  Status status_;
};

void* Create(TF_OpKernelConstruction* construction) {
  auto kernel = std::make_unique<RecurrenceKernel>();
  Attributes attributes(construction);
  RecurrenceArgs& args = kernel->args;
  RecurrenceOptions& options = args.options;
  kernel->type = attributes.Type("T");
  args.state_dtype = IntDTypeOf(kernel->type);
  args.weight_dtype = IntDTypeOf(attributes.Type("Weight"));
  args.input_dtype = IntDTypeOf(attributes.Type("Input"));
  const std::string activation = attributes.String("activation");
  const std::string overflow = attributes.String("overflow");
  options.clip_low = attributes.Int("clip_low");
  options.clip_high = attributes.Int("clip_high");
  options.reverse = attributes.Bool("reverse");
  options.fractional_bits = static_cast<int>(
      std::clamp<int64_t>(attributes.Int("fractional_bits"), -1, 64));
  if (attributes.Ok()) {
    attributes.Require(ParseActivation(activation, &options));
    attributes.Require(ParseOverflow(overflow, &options));
    attributes.Require(CheckRecurrenceDTypes(
        args.input_dtype, args.weight_dtype, args.state_dtype));
  }
  return kernel.release();
}

void* CreateSequence(TF_OpKernelConstruction* construction) {
  void* kernel = Create(construction);
  static_cast<RecurrenceKernel*>(kernel)->args.options.return_sequences = true;
  return kernel;
}

void Destroy(void* kernel) { delete static_cast<RecurrenceKernel*>(kernel); }

// (B, T, F) and (units, units) give (B, units) or, with `axes` = 2, (B, T,
// units).
void Shape(TF_ShapeInferenceContext* context, TF_Status* status, int64_t axes) {
  ShapeBuilder build(context, status);
  const ShapeHandle inputs = build.Input(kInputs);
  const ShapeHandle recurrent_kernel = build.Input(kRecurrentKernel);
  build.RequireRank(inputs, 3);
  build.RequireRank(recurrent_kernel, 2);
  build.Output(0, build.Join(build.Axes(inputs, 0, axes),
                             build.Axes(recurrent_kernel, 1, 2)));
}

void LastShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  Shape(context, status, 1);
}

void SequenceShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  Shape(context, status, 2);
}

void Compute(void* state, TF_OpKernelContext* context) {
  auto* kernel = static_cast<RecurrenceKernel*>(state);
  Call call(context);
  Tensor in[kRecurrenceOperands];
  for (int i = 0; i < kRecurrenceOperands; ++i) in[i] = call.Input(i);
  if (!call.Ok()) return;
  Operand operands[kRecurrenceOperands];
  for (int i = 0; i < kRecurrenceOperands; ++i)
    operands[i] = {i < kBias ? DimsOf(in[i]) : Given(in[i]),
                   TF_TensorData(in[i].get())};
  RecurrenceArgs args = kernel->args;
  call.Require(SetOperands(operands, &args));
  if (!call.Ok()) return;
  const Tensor output =
      call.Output(0, kernel->type, OutputDims(args.shape, args.options));
  if (!call.Ok()) return;
  args.output = TF_TensorData(output.get());
  const RecurrenceResult result =
      IntegerRecurrence(args, kernel->threads.Get(&call));
  if (result.status == RecurrenceStatus::kOutOfMemory)
    call.Fail(TF_RESOURCE_EXHAUSTED,
              "out of memory for the scratch arrays of the recurrence");
  // Not OUT_OF_RANGE: Keras and tf.data take that for the end of the data.
  if (result.status == RecurrenceStatus::kOverflow)
    call.Fail(TF_INVALID_ARGUMENT, OverflowMessage(result, args.state_dtype));
}

bool Register(const char* name,
              void (*shape_function)(TF_ShapeInferenceContext*, TF_Status*),
              void* (*create)(TF_OpKernelConstruction*)) {
  return RegisterOp({
      name,
      {"T: {int32, int64}", "Weight: {int8, int32, int64}",
       "Input: {bool, int8, uint8, int16, int32, int64}",
       "activation: {'none', 'relu', 'sign', 'clip'} = 'none'",
       "clip_low: int = 0", "clip_high: int = 0", "reverse: bool = false",
       "overflow: {'raise', 'wrap', 'saturate'} = 'raise'",
       "fractional_bits: int = 0"},
      {"inputs: Input", "kernel: Weight", "recurrent_kernel: Weight", "bias: T",
       "initial_state: T", "mask: bool"},
      {"states: T"},
      shape_function,
      {TF_INT32, TF_INT64},
      create,
      Guarded<Compute>,
      Destroy,
  });
}

[[maybe_unused]] const bool registered =
    Register("Hw3tfIntegerRnn", Guarded<LastShape>, Guarded<Create>) &&
    Register("Hw3tfIntegerRnnSequence", Guarded<SequenceShape>,
             Guarded<CreateSequence>);

}  // namespace
}  // namespace hw3tf
