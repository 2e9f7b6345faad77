// Attention as two custom calls of XLA: what Hw3tfAttention and
// Hw3tfAttentionGrad are where TensorFlow runs the graph itself.
//
// A custom call is told no shapes. So its first operand is a vector of int64
// that hw3tf/ops/fronts/xla_module.py makes: the header below, then the sizes
// of every array given. All else is as in the ops: the same checks, the same
// kernels.

#include <cstring>

#include "kernels/attention/attention.h"
#include "tensorflow/attention_operands.h"
#include "tensorflow/xla_call.h"

namespace hw3tf {
namespace {

// What follows the operands of both in a gradient.
enum GradOperand {
  kOutput = kAttentionOperands,
  kStatistics,
  kGradOutput,
  kGradLogsumexp,
  kGradOperands,
};

// The header. Names of the calls end in a version: another header, another
// name, because saved models keep the calls.
enum Header {
  kDType,  // 0..3, as in DType
  kFlags,  // 1: causal; 2: finite_logsumexp
  kWindowBefore,
  kWindowAfter,
  kThreads,  // of the session; 0 if it is not set
  kScale,    // the bits of a double, like the two that follow
  kSoftCap,
  kDropoutRate,
  kRanks,  // of each array, -1 where it is not given; then their sizes
};

double Number(int64_t bits) {
  double number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

// Operands of XLA: the header, the seed of dropout, and what ReadOperands
// reads.
struct XlaCall {
  DType dtype = DType::kFloat32;
  int threads = 0;
  bool finite_logsumexp = false;
  Operand operands[kGradOperands];
  AttentionOperands in;
  std::string error;

  XlaCall(const void** arrays, int count) {
    const auto* header = static_cast<const int64_t*>(*arrays++);
    AttentionOptions numbers;
    numbers.dropout_seed = *static_cast<const uint64_t*>(*arrays++);
    numbers.is_causal = (header[kFlags] & 1) != 0;
    finite_logsumexp = (header[kFlags] & 2) != 0;
    numbers.window_before = header[kWindowBefore];
    numbers.window_after = header[kWindowAfter];
    numbers.scale = Number(header[kScale]);
    numbers.soft_cap = Number(header[kSoftCap]);
    numbers.dropout_rate = Number(header[kDropoutRate]);
    dtype = static_cast<DType>(header[kDType]);
    threads = static_cast<int>(header[kThreads]);
    if (ReadOperands(header + kRanks, count, arrays, operands))
      error = in.Set(dtype, numbers, operands);
    else
      error =
          "hw3tf's attention knows no sizes under XLA that depend on values, "
          "as after tf.boolean_mask. Pass masks or lengths instead";
  }
};

void Forward(void* results, const void** arrays, const char*, size_t,
             XlaCustomCallStatus_* status) {
  const XlaCall call(arrays, kAttentionOperands);
  if (!call.error.empty()) return SetXlaError(status, call.error);
  auto** out = static_cast<void**>(results);
  const AttentionForwardArgs args{
      call.dtype,
      call.in.shape,
      call.in.options,
      View(call.operands[kQuery]),
      View(call.operands[kKey]),
      View(call.operands[kValue]),
      MutableView(OutputDims(call.in.arguments), out[0]),
      out[1],
      out[2],
      call.finite_logsumexp};
  if (!AttentionForward(args, call.threads))
    SetXlaError(status, "out of memory for the scratch arrays of attention");
}

void Backward(void* results, const void** arrays, const char*, size_t,
              XlaCustomCallStatus_* status) {
  const XlaCall call(arrays, kGradOperands);
  std::string error = call.error;
  if (error.empty())
    error = CheckResults(
        call.in.arguments,
        {*call.operands[kOutput].dims, *call.operands[kStatistics].dims,
         *call.operands[kGradOutput].dims, call.operands[kGradLogsumexp].dims});
  if (!error.empty()) return SetXlaError(status, error);
  auto** out = static_cast<void**>(results);
  const auto grad = [&](int i) {
    return MutableView(*call.operands[i].dims, out[i]);
  };
  const AttentionBackwardArgs args{
      call.dtype,
      call.in.shape,
      call.in.options,
      View(call.operands[kQuery]),
      View(call.operands[kKey]),
      View(call.operands[kValue]),
      View(call.operands[kOutput]),
      call.operands[kStatistics].data,
      View(call.operands[kGradOutput]),
      call.operands[kGradLogsumexp].data,
      grad(kQuery),
      grad(kKey),
      grad(kValue),
      HasGradBias(call.in.arguments) ? out[kBias] : nullptr};
  if (!AttentionBackward(args, call.threads))
    SetXlaError(
        status,
        "out of memory for the scratch arrays of the gradient of attention");
}

}  // namespace

std::string RegisterAttentionTargets() {
  std::string why = RegisterXlaTarget("hw3tf_attention_1", Guarded<Forward>);
  if (why.empty())
    why = RegisterXlaTarget("hw3tf_attention_grad_1", Guarded<Backward>);
  return why;
}

}  // namespace hw3tf
