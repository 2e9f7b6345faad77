// The TensorFlow op Hw3tfAttention: inputs checked, outputs allocated, one call
// of the kernel.

#include "kernels/attention.h"
#include "tensorflow/op_support.h"

namespace hw3tf {
namespace {

void ForwardShape(TF_ShapeInferenceContext* context, TF_Status* raw) {
  // Axes (B, T, N, H) and (B, S, K, V) give (B, T, N, V) and (B, N, T, 2).
  const ShapeHandle query(TF_NewShapeHandle()), value(TF_NewShapeHandle()),
      part(TF_NewShapeHandle()), output(TF_NewShapeHandle()),
      statistics(TF_NewShapeHandle());
  const auto ok = [raw] { return TF_GetCode(raw) == TF_OK; };
  // to = to ++ from[begin, end)
  const auto append = [&](const ShapeHandle& from, int64_t begin, int64_t end,
                          const ShapeHandle& to) {
    if (!ok()) return;
    TF_ShapeInferenceContextSubshape(context, from.get(), begin, end,
                                     part.get(), raw);
    if (ok())
      TF_ShapeInferenceContextConcatenateShapes(context, to.get(), part.get(),
                                                to.get(), raw);
  };
  const auto input = [&](int index, const ShapeHandle& shape) {
    if (!ok()) return;
    TF_ShapeInferenceContextGetInput(context, index, shape.get(), raw);
    if (ok())
      TF_ShapeInferenceContextWithRank(context, shape.get(), 4, shape.get(),
                                       raw);
  };
  input(0, query);
  input(2, value);
  if (ok())
    TF_ShapeInferenceContextSubshape(context, query.get(), 0, 3, output.get(),
                                     raw);
  append(value, 3, 4, output);
  if (ok()) TF_ShapeInferenceContextSetOutput(context, 0, output.get(), raw);
  if (ok())
    TF_ShapeInferenceContextSubshape(context, query.get(), 0, 1,
                                     statistics.get(), raw);
  append(query, 2, 3, statistics);
  append(query, 1, 2, statistics);
  const ShapeHandle two(TF_ShapeInferenceContextVectorFromSize(context, 2));
  if (ok())
    TF_ShapeInferenceContextConcatenateShapes(context, statistics.get(),
                                              two.get(), statistics.get(), raw);
  if (ok())
    TF_ShapeInferenceContextSetOutput(context, 1, statistics.get(), raw);
}

void ForwardCompute(void* kernel, TF_OpKernelContext* context) {
  auto* state = static_cast<AttentionKernelState*>(kernel);
  Call call(context);
  const AttentionInputs in(&call, *state);
  if (!call.Ok()) return;
  const Tensor output = call.Output(0, OutputDims(in.shape));
  const Tensor statistics = call.Output(1, StatisticsDims(in.shape));
  if (!call.Ok()) return;
  const AttentionForwardArgs args{
      in.shape,
      in.options,
      View(in.query),
      View(in.key),
      View(in.value),
      MutableView(output),
      static_cast<float*>(TF_TensorData(statistics.get()))};
  if (!AttentionForward(args, state->Threads(&call)))
    call.Fail(TF_RESOURCE_EXHAUSTED,
              "out of memory for the scratch arrays of "
              "attention");
}

[[maybe_unused]] const bool registered = RegisterOp({
    "Hw3tfAttention",
    {"scale: float", "is_causal: bool"},
    {"query: float", "key: float", "value: float", "query_mask: bool",
     "key_mask: bool"},
    {"output: float", "statistics: float"},
    ForwardShape,
    ForwardCompute,
});

}  // namespace
}  // namespace hw3tf
