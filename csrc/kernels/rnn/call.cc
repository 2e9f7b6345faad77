#include "kernels/rnn/call.h"

#include <numeric>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernels/runtime/dispatch.h"
#include "kernels/runtime/test_hooks.h"

namespace hw3tf {
namespace {

// Valid steps by position; empty if no step is masked.
std::vector<uint8_t> ValidSteps(const RnnShape& shape,
                                const RnnOptions& options,
                                const RnnOperands& operands) {
  std::vector<uint8_t> valid;
  if (!operands.mask && !operands.lengths) return valid;
  valid.resize(static_cast<size_t>(shape.batch * shape.timesteps));
  bool all = true;
  size_t at = 0;
  for (int64_t b = 0; b < shape.batch; ++b)
    for (int64_t i = 0; i < shape.timesteps; ++i, ++at) {
      const int64_t t = options.reverse ? shape.timesteps - 1 - i : i;
      const bool masked =
          (operands.mask && !operands.mask[b * shape.timesteps + t]) ||
          (operands.lengths && t >= operands.lengths[b]);
      valid[at] = !masked;
      all = all && !masked;
    }
  if (all) valid.clear();
  return valid;
}

int64_t RoundedUp(int64_t size, int64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

}  // namespace

void AdviseLargePages([[maybe_unused]] void* data,
                      [[maybe_unused]] int64_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kLargePage = 2 * 1024 * 1024;
  if (bytes < 2 * static_cast<int64_t>(kLargePage)) return;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + kLargePage - 1) / kLargePage * kLargePage;
  const uintptr_t last =
      (begin + static_cast<uintptr_t>(bytes)) / kLargePage * kLargePage;
  if (first < last)
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

RnnRows::RnnRows(const RnnShape& shape, const RnnOptions& options,
                 const RnnOperands& operands)
    : timesteps_(shape.timesteps),
      valid_(ValidSteps(shape, options, operands)) {
  masked_ = !valid_.empty();
  const auto batch = static_cast<size_t>(shape.batch);
  const auto timesteps = static_cast<size_t>(shape.timesteps);
  std::vector<int32_t> counts(batch, static_cast<int32_t>(timesteps));
  bool prefixes = true;  // position s is step s
  for (size_t b = 0; b < batch && masked_; ++b) {
    const uint8_t* const valid = valid_.data() + b * timesteps;
    counts[b] = std::accumulate(valid, valid + timesteps, 0);
    const auto count = static_cast<size_t>(counts[b]);
    prefixes = prefixes && std::accumulate(valid, valid + count, 0) ==
                               static_cast<int>(count);
  }
  order_.resize(batch);
  std::iota(order_.begin(), order_.end(), 0);
  const auto count_of = [&](int32_t entry) {
    return counts[static_cast<size_t>(entry)];
  };
  if (masked_)
    std::stable_sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) {
      return count_of(a) > count_of(b);
    });
  while (!order_.empty() && count_of(order_.back()) == 0) order_.pop_back();
  row_of_.assign(batch, -1);
  steps_.resize(order_.size());
  for (size_t row = 0; row < order_.size(); ++row) {
    row_of_[static_cast<size_t>(order_[row])] = static_cast<int32_t>(row);
    steps_[row] = count_of(order_[row]);
  }
  if (!steps_.empty()) active_.resize(static_cast<size_t>(steps_[0]));
  size_t active = steps_.size();
  for (size_t step = 0; step < active_.size(); ++step) {
    while (steps_[active - 1] <= static_cast<int32_t>(step)) --active;
    active_[step] = static_cast<int32_t>(active);
  }
  if (prefixes) return;
  positions_.resize(order_.size() * timesteps);
  for (size_t row = 0; row < order_.size(); ++row) {
    const uint8_t* const valid =
        valid_.data() + static_cast<size_t>(order_[row]) * timesteps;
    int32_t* to = positions_.data() + row * timesteps;
    for (size_t i = 0; i < timesteps; ++i)
      if (valid[i]) *to++ = static_cast<int32_t>(i);
  }
}

bool IsHalf(RnnDType dtype) {
  return dtype == RnnDType::kFloat16 || dtype == RnnDType::kBfloat16;
}

const RnnKernels& ChosenRnnKernels() { return *ChosenInstructionSet().rnn; }

bool MultipliesPairs(RnnDType dtype, const RnnOperands& operands) {
  return dtype == RnnDType::kBfloat16 && !operands.input_dropout &&
         ChosenInstructionSet().rnn_bfloat16;
}

template <>
const RnnKernelsOf<float>& ChosenRnnKernelsOf<float>(bool pairs) {
  return pairs ? *ChosenInstructionSet().rnn_bfloat16
               : ChosenRnnKernels().of_float;
}

template <>
const RnnKernelsOf<double>& ChosenRnnKernelsOf<double>(bool) {
  return ChosenRnnKernels().of_double;
}

template <typename Real>
void Widened<Real>::Set(const void* data, int64_t size, RnnDType dtype,
                        [[maybe_unused]] int threads) {
  if constexpr (sizeof(Real) == sizeof(float)) {
    if (data && IsHalf(dtype)) {
      constexpr int64_t kBlock = 32768;
      copy_.Resize(size);
      const auto widen = ChosenRnnKernels().conversions.widen;
      const auto* const halves = static_cast<const uint16_t*>(data);
      ParallelFor((size + kBlock - 1) / kBlock, threads,
                  [&](int64_t block, int) {
                    const int64_t at = block * kBlock;
                    widen(halves + at, dtype, std::min(size - at, kBlock),
                          copy_.get() + at);
                  });
      data_ = copy_.get();
      return;
    }
  }
  data_ = static_cast<const Real*>(data);
}

template <typename Real>
void Widened<Real>::SetInputs([[maybe_unused]] const RnnOperands& operands,
                              [[maybe_unused]] const RnnShape& shape,
                              [[maybe_unused]] RnnDType dtype,
                              [[maybe_unused]] int threads) {
  if constexpr (sizeof(Real) == sizeof(float)) {
    copy_.Resize(shape.batch * shape.timesteps * shape.features);
    const auto widen = ChosenRnnKernels().conversions.widen;
    const auto* const halves = static_cast<const uint16_t*>(operands.inputs);
    ParallelFor(shape.batch, threads, [&](int64_t b, int) {
      for (int64_t t = 0; t < shape.timesteps; ++t)
        widen(halves + b * operands.input_batch_stride +
                  t * operands.input_time_stride,
              dtype, shape.features,
              copy_.get() + (b * shape.timesteps + t) * shape.features);
    });
    data_ = copy_.get();
  }
}

RnnKept RnnKeptParts(RnnCell cell, RnnDType dtype, const RnnShape& shape,
                     const RnnOptions& options) {
  RnnKept parts{};
  if (!options.keep) return parts;
  const int64_t steps = shape.batch * shape.timesteps;
  const int64_t padded = RoundedUp(shape.units, kRnnPadding);
  if (cell != RnnCell::kSimple) parts.gates = steps * kRnnSlots * padded;
  if (cell == RnnCell::kLstm) parts.c = steps * padded;
  if (!options.return_sequences || IsHalf(dtype)) parts.h = steps * shape.units;
  return parts;
}

int64_t RnnKeptElements(RnnCell cell, RnnDType dtype, const RnnShape& shape,
                        const RnnOptions& options) {
  const RnnKept parts = RnnKeptParts(cell, dtype, shape, options);
  return parts.gates + parts.c + parts.h;
}

int RnnThreads(int requested, double multiplications) {
  // Below about 50 us of work on one core a second one is not worth waking.
  constexpr double kFewMultiplications = 2e6;
  if (multiplications < kFewMultiplications && !test_hooks.always_threads)
    return 1;
  return ResolveNumThreads(requested);
}

bool FewRows(int64_t rows, int threads, int64_t weight_bytes) {
  constexpr int64_t kManyRows = 4, kManyRowsOfLargeWeights = 64;
  // More than the second cache of a core holds.
  constexpr int64_t kLargeWeights = 3 * 1024 * 1024;
  const bool large = threads > 1 && weight_bytes > kLargeWeights;
  const int64_t many = large ? kManyRowsOfLargeWeights : kManyRows;
  return rows < Hooked(test_hooks.rnn_many_rows, many) * threads;
}

template <typename Real>
RnnCall<Real>::RnnCall(RnnCell cell, RnnDType element, const RnnShape& shape,
                       const RnnOptions& options,
                       const RnnOperands& call_operands, bool of_pairs,
                       int num_threads)
    : kernels(ChosenRnnKernelsOf<Real>(of_pairs)),
      rows(shape, options, call_operands),
      operands(call_operands),
      dtype(element),
      pairs(of_pairs) {
  const int gates = RnnGates(cell);
  const int64_t batch = shape.batch, units = shape.units;
  const int64_t columns = gates * units;
  plan.cell = cell;
  plan.options = options;
  plan.shape = shape;
  plan.rows = rows.rows();
  plan.order = rows.order();
  plan.steps = rows.steps();
  plan.active = rows.active();
  plan.masked = rows.masked();
  plan.positions = rows.positions();
  int64_t steps = 0;
  for (int64_t row = 0; row < plan.rows; ++row) steps += plan.steps[row];
  threads = RnnThreads(
      num_threads, static_cast<double>(steps) * static_cast<double>(columns) *
                       static_cast<double>(units + shape.features));
  if (IsHalf(dtype) && !pairs) {
    inputs_.SetInputs(operands, shape, dtype, threads);
    plan.inputs = inputs_.get();
    plan.input_time_stride = shape.features;
    plan.input_batch_stride = shape.timesteps * shape.features;
  } else {
    if (pairs)
      plan.half_inputs = static_cast<const uint16_t*>(operands.inputs);
    else
      plan.inputs = static_cast<const Real*>(operands.inputs);
    plan.input_time_stride = operands.input_time_stride;
    plan.input_batch_stride = operands.input_batch_stride;
  }
  if (!pairs)
    kernel_.Set(operands.kernel, shape.features * columns, dtype, threads);
  recurrent_kernel_.Set(operands.recurrent_kernel, units * columns, dtype,
                        threads);
  bias_.Set(operands.bias, columns, dtype, 1);
  recurrent_bias_.Set(operands.recurrent_bias, columns, dtype, 1);
  initial_h_.Set(operands.initial_h, batch * units, dtype, 1);
  initial_c_.Set(operands.initial_c, batch * units, dtype, 1);
  plan.initial_h = initial_h_.get();
  initial_c = initial_c_.get();
  if (operands.input_dropout) {
    plan.input_dropouts = operands.input_dropouts;
    input_dropout_.Set(operands.input_dropout,
                       plan.input_dropouts * batch * shape.features, dtype, 1);
    plan.input_dropout = input_dropout_.get();
  }
  if (operands.recurrent_dropout) {
    plan.recurrent_dropouts = operands.recurrent_dropouts;
    recurrent_dropout_.Set(operands.recurrent_dropout,
                           plan.recurrent_dropouts * batch * units, dtype, 1);
    plan.recurrent_dropout = recurrent_dropout_.get();
  }
  const int64_t per_panel = RnnUnitsOfPanel(cell, kernels.lanes);
  plan.panels = (units + per_panel - 1) / per_panel;
  plan.padded_units = plan.panels * per_panel;
  plan.grad_stride = RoundedUp(units, kRnnSlots * kernels.lanes);
  zeros_.Resize(plan.grad_stride);
  zeros_.Zero();
  plan.zeros = zeros_.get();
  if (cell == RnnCell::kLstm) PlaceInitialC();
}

// c before the first step, as the kernels read it.
template <typename Real>
void RnnCall<Real>::PlaceInitialC() {
  padded_c_.Resize(plan.padded_units * std::max<int64_t>(plan.rows, 1));
  padded_c_.Zero();
  plan.initial_c = padded_c_.get();
  if (!initial_c) return;
  for (int64_t p = 0; p < plan.panels; ++p) {
    const RnnColumns units =
        RnnColumnsOf(plan.cell, plan.shape.units, kernels.lanes, false, p, 0);
    for (int64_t row = 0; row < plan.rows; ++row)
      std::copy_n(initial_c + plan.order[row] * plan.shape.units + units.first,
                  units.count,
                  padded_c_.get() + (p * plan.rows + row) * kernels.lanes);
  }
}

template <typename Real>
void RnnCall<Real>::PlaceKept(void* kept) {
  const RnnKept parts =
      RnnKeptParts(plan.cell, dtype, plan.shape, plan.options);
  Real* const begin = static_cast<Real*>(kept);
  if (parts.gates) plan.gates = begin;
  if (parts.c) plan.c = begin + parts.gates, plan.keeps_c = true;
  if (parts.h) plan.h = begin + parts.gates + parts.c;
}

template <typename Real>
int64_t RnnCall<Real>::weight_bytes() const {
  return (plan.shape.features + plan.shape.units) * plan.padded_units *
         RnnGates(plan.cell) * static_cast<int64_t>(sizeof(Real));
}

template <typename Real>
void RnnCall<Real>::PackForward() {
  const int64_t vectors = RnnVectors(plan.cell) * kernels.lanes * plan.panels;
  packed_kernel_.Resize(vectors * plan.shape.features);
  packed_recurrent_.Resize(vectors * plan.shape.units);
  if (pairs)
    PackPairs(packed_kernel_.get());
  else
    PackWeights(kernel_.get(), false, packed_kernel_.get());
  PackWeights(recurrent_kernel_.get(), true, packed_recurrent_.get());
  PackBias();
  plan.kernel = packed_kernel_.get();
  plan.recurrent_kernel = packed_recurrent_.get();
  plan.bias = packed_bias_.get();
}

template <typename Real>
void RnnCall<Real>::PackWeights(const Real* weights, bool recurrent,
                                Real* to) const {
  const int64_t depth = recurrent ? plan.shape.units : plan.shape.features;
  const int64_t columns = RnnGates(plan.cell) * plan.shape.units;
  PackPanels(recurrent, depth, to, [=](int64_t k, int64_t column) {
    return weights[k * columns + column];
  });
}

// K of bfloat16: two rows of it in the bits of one of floats.
template <typename Real>
void RnnCall<Real>::PackPairs(Real* to) const {
  const int64_t depth = plan.shape.features;
  const int64_t columns = RnnGates(plan.cell) * plan.shape.units;
  const auto* const halves = static_cast<const uint16_t*>(operands.kernel);
  PackPanels(false, (depth + 1) / 2, to, [=](int64_t k, int64_t column) {
    const uint16_t* const half = halves + 2 * k * columns + column;
    uint32_t pair = half[0];
    if (2 * k + 1 < depth) pair |= static_cast<uint32_t>(half[columns]) << 16;
    Real unit{};
    std::memcpy(&unit, &pair, sizeof pair);
    return unit;
  });
}

// `unit_of`: row and column of K or R -> what is packed.
template <typename Real>
template <typename UnitOf>
void RnnCall<Real>::PackPanels(bool recurrent, int64_t depth, Real* to,
                               const UnitOf& unit_of) const {
  const int64_t lanes = kernels.lanes;
  const int vectors = RnnVectors(plan.cell);
  ParallelFor(plan.panels, threads, [&](int64_t panel, int) {
    Real* at = to + panel * depth * vectors * lanes;
    RnnColumns from[kRnnSlots];
    for (int v = 0; v < vectors; ++v)
      from[v] =
          RnnColumnsOf(plan.cell, plan.shape.units, lanes, recurrent, panel, v);
    for (int64_t k = 0; k < depth; ++k)
      for (int v = 0; v < vectors; ++v, at += lanes) {
        for (int64_t i = 0; i < from[v].count; ++i)
          at[i] = unit_of(k, from[v].first + i);
        for (int64_t i = from[v].count; i < lanes; ++i) at[i] = 0;
      }
  });
}

// A slot of the GRU has the biases of what is in it: both in those of z and r.
template <typename Real>
void RnnCall<Real>::PackBias() {
  const int64_t lanes = kernels.lanes, units = plan.shape.units;
  packed_bias_.Resize(plan.panels * kRnnSlots * lanes);
  packed_bias_.Zero();
  const int first = RnnRecurrentSlot(plan.cell);
  for (const bool recurrent : {false, true}) {
    const Real* const bias = recurrent ? recurrent_bias_.get() : bias_.get();
    if (!bias) continue;
    for (int64_t p = 0; p < plan.panels; ++p)
      for (int v = 0; v < RnnVectors(plan.cell); ++v) {
        const RnnColumns from =
            RnnColumnsOf(plan.cell, units, lanes, recurrent, p, v);
        const int slot = recurrent ? first + v : v;
        Real* const to = packed_bias_.get() + (p * kRnnSlots + slot) * lanes;
        for (int64_t i = 0; i < from.count; ++i) to[i] += bias[from.first + i];
      }
  }
}

template <typename Real>
void RnnCall<Real>::PackBackward(bool inputs_wanted) {
  const int64_t lanes = kernels.lanes;
  const int64_t depth = plan.panels * RnnVectors(plan.cell) * lanes;
  packed_recurrent_.Resize(depth * RoundedUp(plan.shape.units, lanes));
  PackColumns(recurrent_kernel_.get(), true, packed_recurrent_.get());
  plan.recurrent_rows = packed_recurrent_.get();
  if (!inputs_wanted) return;
  packed_kernel_.Resize(depth * RoundedUp(plan.shape.features, lanes));
  PackColumns(kernel_.get(), false, packed_kernel_.get());
  plan.kernel_rows = packed_kernel_.get();
}

// (panels of 4 vectors of rows of K; panels of units, vectors, lanes). A row of
// K is read in whole lines of the cache: column by column, rows of a power of
// two would push each other out of it.
template <typename Real>
void RnnCall<Real>::PackColumns(const Real* weights, bool recurrent,
                                Real* to) const {
  const int64_t rows_of_weights =
      recurrent ? plan.shape.units : plan.shape.features;
  const int64_t columns = RnnGates(plan.cell) * plan.shape.units;
  const int64_t lanes = kernels.lanes, panel_width = kRnnSlots * lanes;
  const int vectors = RnnVectors(plan.cell);
  const int64_t panels = (rows_of_weights + panel_width - 1) / panel_width;
  ParallelFor(panels * plan.panels, threads, [&](int64_t task, int) {
    const int64_t first = task / plan.panels * panel_width;
    const int64_t panel = task % plan.panels;
    const int64_t count = std::min(rows_of_weights - first, panel_width);
    const int64_t width = RoundedUp(count, lanes);
    for (int v = 0; v < vectors; ++v) {
      const RnnColumns from =
          RnnColumnsOf(plan.cell, plan.shape.units, lanes, recurrent, panel, v);
      Real* const at = to + first * plan.panels * vectors * lanes +
                       (panel * vectors + v) * lanes * width;
      for (int64_t j = 0; j < width; ++j) {
        const int64_t k = std::min(first + j, rows_of_weights - 1);
        const Real* const row = weights + k * columns + from.first;
        for (int64_t i = 0; i < lanes; ++i)
          at[i * width + j] = i < from.count && j < count ? row[i] : Real{0};
      }
    }
  });
}

template <typename Real>
void RnnCall<Real>::Unpack(const Real* packed, bool recurrent, void* to) const {
  const int64_t depth = recurrent ? plan.shape.units : plan.shape.features;
  const int64_t columns = RnnGates(plan.cell) * plan.shape.units;
  const int64_t lanes = kernels.lanes;
  const int vectors = RnnVectors(plan.cell);
  ParallelFor(plan.panels, threads, [&](int64_t panel, int) {
    for (int v = 0; v < vectors; ++v) {
      const RnnColumns at =
          RnnColumnsOf(plan.cell, plan.shape.units, lanes, recurrent, panel, v);
      const Real* from = packed + (panel * depth * vectors + v) * lanes;
      for (int64_t k = 0; k < depth; ++k, from += vectors * lanes)
        StoreAs(from, dtype, at.count, to, k * columns + at.first);
    }
  });
}

template <typename Real>
void RnnCall<Real>::UnpackBias(const Real* packed, bool recurrent,
                               void* to) const {
  const int64_t lanes = kernels.lanes;
  for (int64_t p = 0; p < plan.panels; ++p)
    for (int v = 0; v < RnnVectors(plan.cell); ++v) {
      const RnnColumns at =
          RnnColumnsOf(plan.cell, plan.shape.units, lanes, recurrent, p, v);
      const int slot = recurrent ? RnnRecurrentSlot(plan.cell) + v : v;
      StoreAs(packed + (p * kRnnSlots + slot) * lanes, dtype, at.count, to,
              at.first);
    }
}

template class Widened<float>;
template class Widened<double>;
template class RnnCall<float>;
template class RnnCall<double>;

}  // namespace hw3tf
