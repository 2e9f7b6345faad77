#include "tests/attention/results.h"

#include <cstring>

namespace hw3tf {
namespace {

// The kernels ignore the batch stride of packed sequences.
template <typename Array>
Array Of(const Inputs& inputs, Array array) {
  if (inputs.c.packed != Packed::kNo) array.strides.batch = int64_t{1} << 60;
  return array;
}

RowsShape GradShape(const Inputs& inputs, const Rows& rows) {
  RowsShape shape = rows.shape();
  shape.one_batch &= inputs.c.summed_grads;
  return shape;
}

int64_t GradBiasCount(const Inputs& inputs) {
  return inputs.c.all_outputs ? inputs.bias.count() : 0;
}

}  // namespace

Results::Results(const Inputs& x)
    : output(x.dtype, x.grad_output.shape(), x.LayoutOf(3), x.guard),
      grad_query(x.dtype, GradShape(x, x.query), x.LayoutOf(1), x.guard),
      grad_key(x.dtype, GradShape(x, x.key), x.LayoutOf(2), x.guard),
      grad_value(x.dtype, GradShape(x, x.value), x.LayoutOf(0), x.guard),
      statistics(RealType(x.dtype), 2 * x.LogsumexpCount(), x.guard),
      logsumexp(RealType(x.dtype), x.c.all_outputs ? x.LogsumexpCount() : 0,
                x.guard),
      grad_bias(RealType(x.dtype), GradBiasCount(x), x.guard) {}

AttentionForwardArgs Results::Forward(const Inputs& x) const {
  return {x.dtype,
          x.shape,
          x.options,
          Of(x, x.query.ReadArray()),
          Of(x, x.key.ReadArray()),
          Of(x, x.value.ReadArray()),
          Of(x, output.WriteArray()),
          statistics.get(),
          x.c.all_outputs ? logsumexp.get() : nullptr,
          x.c.finite_logsumexp};
}

AttentionBackwardArgs Results::Backward(const Inputs& x) const {
  const bool wants_bias = x.c.all_outputs && x.c.bias != Bias::kNone;
  return {x.dtype,
          x.shape,
          x.options,
          Of(x, x.query.ReadArray()),
          Of(x, x.key.ReadArray()),
          Of(x, x.value.ReadArray()),
          Of(x, output.ReadArray()),
          statistics.get(),
          Of(x, x.grad_output.ReadArray()),
          x.c.grad_logsumexp ? x.grad_logsumexp.get() : nullptr,
          Of(x, grad_query.WriteArray()),
          Of(x, grad_key.WriteArray()),
          Of(x, grad_value.WriteArray()),
          wants_bias ? grad_bias.get() : nullptr};
}

void Results::CheckSameBits(const Results& other, const Case& c) const {
  const auto same = [&](const char* what, const auto& x, const auto& y) {
    const auto& a = x.memory();
    CHECK(std::memcmp(a.get(), y.memory().get(), a.bytes()) == 0,
          "other bits of %s on another number of threads: %s", what,
          c.Name().c_str());
  };
  same("output", output, other.output);
  same("statistics", statistics, other.statistics);
  same("logsumexp", logsumexp, other.logsumexp);
  same("grad_query", grad_query, other.grad_query);
  same("grad_key", grad_key, other.grad_key);
  same("grad_value", grad_value, other.grad_value);
  same("grad_bias", grad_bias, other.grad_bias);
}

}  // namespace hw3tf
