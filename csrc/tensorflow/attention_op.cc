// The TensorFlow op Hw3tfAttention: inputs checked, outputs allocated, one call
// of the kernel.

#include "kernels/attention/attention.h"
#include "tensorflow/attention_inputs.h"
#include "tensorflow/shape_builder.h"

namespace hw3tf {
namespace {

// The batch of the results: that of query, key and value which is not 1.
ShapeHandle BatchShape(ShapeBuilder* build,
                       std::initializer_list<const ShapeHandle*> operands) {
  bool all_known = true;
  for (const ShapeHandle* operand : operands) {
    const int64_t size =
        build->Rank(*operand) < 1 ? -1 : build->Size(*operand, 0);
    if (size >= 0 && size != 1) return build->Axes(*operand, 0, 1);
    all_known = all_known && size == 1;
  }
  return all_known ? build->Axes(**operands.begin(), 0, 1) : build->Unknown();
}

// (B, T, N, H) and (B, S, K, V) give (B, T, N, V), (B, N, T, 2) and (B, N, T);
// packed, rank 3, all are without B.
void ForwardShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  ShapeBuilder build(context, status);
  const ShapeHandle query = build.Input(kQuery), key = build.Input(kKey);
  const ShapeHandle value = build.Input(kValue);
  int64_t rank = build.Rank(query);
  if (rank < 0) rank = build.Rank(value);
  if (rank < 0) {
    if (build.Ok()) TF_ShapeInferenceContextSetUnknownShape(context, status);
    return;
  }
  if (rank != 3) rank = 4;
  build.RequireRank(query, rank);
  build.RequireRank(value, rank);
  const ShapeHandle batch = rank == 4
                                ? BatchShape(&build, {&query, &key, &value})
                                : build.Axes(query, 0, 0);
  build.Output(
      0, build.Join(build.Join(batch, build.Axes(query, rank - 3, rank - 1)),
                    build.Axes(value, rank - 1, rank)));
  const ShapeHandle lengths =
      build.Join(build.Join(batch, build.Axes(query, rank - 2, rank - 1)),
                 build.Axes(query, rank - 3, rank - 2));
  const ShapeHandle two(TF_ShapeInferenceContextVectorFromSize(context, 2));
  build.Output(1, build.Join(lengths, two));
  build.Output(2, lengths);
}

void ForwardCompute(void* state, TF_OpKernelContext* context) {
  auto* kernel = static_cast<AttentionKernel*>(state);
  Call call(context);
  AttentionInputs in(&call, *kernel);
  if (!call.Ok()) return;
  // A query that only this op reads gives its memory to the output: the lines
  // are in the cache, and nothing is allocated.
  const Dims output_dims = OutputDims(in.arguments);
  const Tensor output = output_dims == in.arguments.query
                            ? call.OutputInPlace(0, kQuery, &in.tensors[kQuery])
                            : call.Output(0, kernel->type, output_dims);
  const Tensor statistics =
      call.Output(1, kernel->real_type, StatisticsDims(in.arguments));
  const Tensor logsumexp =
      call.Output(2, kernel->real_type, LogsumexpDims(in.arguments));
  if (!call.Ok()) return;
  const AttentionForwardArgs args{kernel->dtype,
                                  in.shape,
                                  in.options,
                                  View(in.tensors[kQuery]),
                                  View(in.tensors[kKey]),
                                  View(in.tensors[kValue]),
                                  MutableView(output),
                                  TF_TensorData(statistics.get()),
                                  TF_TensorData(logsumexp.get()),
                                  kernel->finite_logsumexp};
  if (!AttentionForward(args, kernel->threads.Get(&call)))
    call.Fail(TF_RESOURCE_EXHAUSTED,
              "out of memory for the scratch arrays of attention");
}

[[maybe_unused]] const bool registered = RegisterAttentionOp(
    "Hw3tfAttention", {}, {"output: T", "statistics: Real", "logsumexp: Real"},
    Guarded<ForwardShape>, Guarded<ForwardCompute>);

}  // namespace
}  // namespace hw3tf
