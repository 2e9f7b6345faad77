// Some rows through all their steps, and back through those of a chunk.

#pragma once

#include "kernels/rnn/cell-inl.h"
#include "kernels/rnn/product-inl.h"

namespace hw3tf {
namespace {

// Hands out parts of the scratch memory of a task; without memory it counts
// how much there must be.
class Scratch {
 public:
  explicit Scratch(void* memory) : at_(static_cast<char*>(memory)) {}

  template <typename T>
  T* Take(int64_t count) {
    constexpr int64_t kLine = 64;
    const int64_t bytes =
        (count * static_cast<int64_t>(sizeof(T)) + kLine - 1) / kLine * kLine;
    T* const taken = reinterpret_cast<T*>(at_);
    if (at_) at_ += bytes;
    bytes_ += bytes;
    return taken;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* at_;
  int64_t bytes_ = 0;
};

template <typename Real>
inline int64_t Position(const RnnPlan<Real>& plan, int64_t row, int64_t step) {
  if (!plan.positions) return step;
  return plan.positions[row * plan.shape.timesteps + step];
}

template <typename Real>
inline int64_t TimeOf(const RnnPlan<Real>& plan, int64_t row, int64_t step) {
  const int64_t position = Position(plan, row, step);
  return plan.options.reverse ? plan.shape.timesteps - 1 - position : position;
}

template <typename Real>
inline const Real* InputsOf(const RnnPlan<Real>& plan, int64_t row,
                            int64_t step) {
  return plan.inputs + plan.order[row] * plan.input_batch_stride +
         TimeOf(plan, row, step) * plan.input_time_stride;
}

template <typename Real>
inline Real* StateOf(const RnnPlan<Real>& plan, int64_t row, int64_t step) {
  const int64_t units = plan.shape.units;
  if (!plan.keeps_h) return plan.h + (step % 2 * plan.rows + row) * units;
  const int64_t entry = plan.order[row] * plan.shape.timesteps;
  return plan.h + (entry + Position(plan, row, step)) * units;
}

// h before a step.
template <typename Real>
inline const Real* OldStateOf(const RnnPlan<Real>& plan, int64_t row,
                              int64_t step) {
  if (step > 0) return StateOf(plan, row, step - 1);
  if (!plan.initial_h) return plan.zeros;
  return plan.initial_h + plan.order[row] * plan.shape.units;
}

template <typename Real>
inline const Real* OldCells(const RnnPlan<Real>& plan, int64_t step,
                            int64_t panel, int64_t row) {
  const int64_t at = (panel * plan.rows + row) * kLanesOf<Real>;
  if (step == 0) return plan.initial_c + at;
  if (!plan.keeps_c) return plan.c + at;
  return plan.c + (step - 1) * plan.panels * plan.rows * kLanesOf<Real> + at;
}

template <typename Real>
inline Real* CellsOf(const RnnPlan<Real>& plan, int64_t step, int64_t panel,
                     int64_t row) {
  const int64_t at = (panel * plan.rows + row) * kLanesOf<Real>;
  if (!plan.keeps_c) return plan.c + at;
  return plan.c + step * plan.panels * plan.rows * kLanesOf<Real> + at;
}

template <typename Real>
inline Real* GatesOf(const RnnPlan<Real>& plan, int64_t step, int64_t panel,
                     int64_t row) {
  if (!plan.gates) return nullptr;
  return plan.gates + ((step * plan.panels + panel) * plan.rows + row) *
                          kRnnSlots * kLanesOf<Real>;
}

template <typename Real>
inline PanelUnits UnitsOf(const RnnPlan<Real>& plan, int64_t panel,
                          int64_t rows) {
  const int64_t per_panel = RnnUnitsOfPanel(plan.cell, kLanesOf<Real>);
  const int64_t unit = panel * per_panel, left = plan.shape.units - unit;
  return {rows, unit, left < per_panel ? left : per_panel};
}

// The vectors of a panel that have units, of the simple RNN; of the others all.
template <typename Real>
inline int VectorsOf(const RnnPlan<Real>& plan, int64_t panel) {
  if (plan.cell != RnnCell::kSimple) return RnnVectors(plan.cell);
  const int64_t count = UnitsOf(plan, panel, 0).count;
  return static_cast<int>((count + kLanesOf<Real> - 1) / kLanesOf<Real>);
}

// A panel of columns of K^T or R^T: 4 vectors, fewer at the end.
template <typename Real>
inline int ColumnVectors(int64_t columns, int64_t panel) {
  constexpr int64_t kWidth = kRnnSlots * kLanesOf<Real>;
  const int64_t left = columns - panel * kWidth;
  if (left >= kWidth) return kRnnSlots;
  return static_cast<int>((left + kLanesOf<Real> - 1) / kLanesOf<Real>);
}

template <typename Real>
inline void MultiplyRow(const Real* a, const Real* b, int64_t count, Real* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = a[i] * b[i];
}

// The rows that K or R multiply: as they are; or times one dropout mask, or
// times one for each gate, then in memory at `masked`, (gates, rows, width).
template <typename Real>
void MaskRows(const RnnPlan<Real>& plan, const Real* dropout, int gates,
              int64_t width, int64_t first, int64_t rows, int64_t gate_rows,
              const Real** pointers, Real* masked) {
  if (!dropout) return;
  for (int g = gates - 1; g >= 0; --g)
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t entry = g * plan.shape.batch + plan.order[first + r];
      Real* const to = masked + (g * gate_rows + r) * width;
      MultiplyRow(pointers[r], dropout + entry * width, width, to);
      // The unmasked rows, at gate 0, are read until the end.
      pointers[g * gate_rows + r] = to;
    }
}

// What a task of the forward pass has beside the plan.
template <typename Real>
struct ForwardTask {
  int64_t rows;  // room
  Real* sums;    // (panels, rows, 4 vectors), of all panels if r multiplies h
  const Real **x, **h, **old_h, **reset_rows;  // pointers of rows
  Real** new_h;
  Real *masked_x, *masked_h;
  Real* reset_h;

  ForwardTask(const RnnPlan<Real>& plan, int64_t row_count, Scratch* scratch)
      : rows(row_count) {
    const bool resets = ResetsFirst(plan);
    sums = scratch->Take<Real>((resets ? plan.panels : 1) * rows * kRnnSlots *
                               kLanesOf<Real>);
    x = scratch->Take<const Real*>(kRnnMostGates * rows);
    h = scratch->Take<const Real*>(kRnnMostGates * rows);
    old_h = scratch->Take<const Real*>(rows);
    reset_rows = scratch->Take<const Real*>(rows);
    new_h = scratch->Take<Real*>(rows);
    masked_x =
        scratch->Take<Real>(plan.input_dropouts * rows * plan.shape.features);
    masked_h =
        scratch->Take<Real>(plan.recurrent_dropouts * rows * plan.shape.units);
    reset_h = scratch->Take<Real>(resets ? rows * plan.shape.units : 0);
  }

  static bool ResetsFirst(const RnnPlan<Real>& plan) {
    return plan.cell == RnnCell::kGru && !plan.options.reset_after;
  }
};

// One factor: all vectors of a panel of K or R, or `vector` alone.
template <typename Real>
inline Factor<Real> FactorOf(const RnnPlan<Real>& plan, bool recurrent,
                             int64_t panel, const Real* const* rows,
                             int vector = 0) {
  const int64_t depth = recurrent ? plan.shape.units : plan.shape.features;
  const int64_t stride = RnnVectors(plan.cell) * kLanesOf<Real>;
  const Real* const weights =
      (recurrent ? plan.recurrent_kernel : plan.kernel) +
      panel * depth * stride + vector * kLanesOf<Real>;
  return {rows, 0, weights, stride, depth, 1, 0, 0};
}

// sums += x K, or h R, each gate with rows of its own: `count` vectors.
template <typename Real>
void AddGateByGate(const RnnPlan<Real>& plan, bool recurrent, int64_t panel,
                   const Real* const* rows, int64_t gate_rows, int gates,
                   int count, int64_t row_count, Real* sums) {
  constexpr int64_t kStride = kRnnSlots * kLanesOf<Real>;
  const int slot = recurrent ? RnnRecurrentSlot(plan.cell) : 0;
  if (gates <= 1) {
    Real* const to = sums + slot * kLanesOf<Real>;
    return MultiplyPlain(count, FactorOf(plan, recurrent, panel, rows),
                         row_count, Sums<Real>{to, kStride, to, kStride});
  }
  for (int v = 0; v < count; ++v) {
    const int gate = RnnGateOf(plan.cell, recurrent, v);
    Real* const to = sums + (slot + v) * kLanesOf<Real>;
    MultiplyPlain(1,
                  FactorOf(plan, recurrent, panel, rows + gate * gate_rows, v),
                  row_count, Sums<Real>{to, kStride, to, kStride});
  }
}

template <typename Real>
void SumsOfPanel(const RnnPlan<Real>& plan, const ForwardTask<Real>& task,
                 int64_t panel, int64_t rows, Real* sums) {
  constexpr int64_t kStride = kRnnSlots * kLanesOf<Real>;
  const Real* const bias = plan.bias + panel * kStride;
  const bool resets = ForwardTask<Real>::ResetsFirst(plan);
  if (plan.input_dropouts <= 1 && plan.recurrent_dropouts <= 1 && !resets) {
    const Factor<Real> factors[] = {FactorOf(plan, false, panel, task.x),
                                    FactorOf(plan, true, panel, task.h)};
    const Sums<Real> place{bias, 0, sums, kStride};
    if (plan.cell == RnnCell::kGru)
      return Multiply<3, 4, 1>(factors, 2, rows, place);
    switch (VectorsOf(plan, panel)) {
      case 1:
        return Multiply<1, 1, 0>(factors, 2, rows, place);
      case 2:
        return Multiply<2, 2, 0>(factors, 2, rows, place);
      case 3:
        return Multiply<3, 3, 0>(factors, 2, rows, place);
      default:
        return Multiply<4, 4, 0>(factors, 2, rows, place);
    }
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int v = 0; v < kRnnSlots; ++v)
      Store(sums + r * kStride + v * kLanesOf<Real>,
            Load(bias + v * kLanesOf<Real>));
  const int vectors = VectorsOf(plan, panel);
  AddGateByGate(plan, false, panel, task.x, task.rows, plan.input_dropouts,
                vectors, rows, sums);
  AddGateByGate(plan, true, panel, task.h, task.rows, plan.recurrent_dropouts,
                resets ? 2 : vectors, rows, sums);
}

template <typename Real, typename Activations>
void ForwardStep(const RnnPlan<Real>& plan, const Activations& act,
                 const ForwardTask<Real>& task, int64_t step, int64_t first,
                 int64_t rows) {
  constexpr int64_t kStride = kRnnSlots * kLanesOf<Real>;
  const bool resets = ForwardTask<Real>::ResetsFirst(plan);
  for (int64_t p = 0; p < plan.panels; ++p) {
    Real* const sums = task.sums + (resets ? p * task.rows * kStride : 0);
    const PanelUnits panel = UnitsOf(plan, p, rows);
    SumsOfPanel(plan, task, p, rows, sums);
    Real* const gates = GatesOf(plan, step, p, first);
    if (plan.cell == RnnCell::kLstm)
      LstmStates(act, panel, sums, OldCells(plan, step, p, first),
                 CellsOf(plan, step, p, first), gates, task.new_h);
    else if (plan.cell == RnnCell::kSimple)
      SimpleStates(act, panel, sums, task.new_h);
    else if (!resets)
      GruStates(act, panel, sums, task.old_h, gates, task.new_h);
    else
      GruResets(act, panel, sums,
                task.h + (plan.recurrent_dropouts > 1 ? 2 * task.rows : 0),
                task.reset_h, plan.shape.units);
  }
  if (!resets) return;
  for (int64_t p = 0; p < plan.panels; ++p) {
    Real* const sums = task.sums + p * task.rows * kStride;
    MultiplyPlain(1, FactorOf(plan, true, p, task.reset_rows, 2), rows,
                  Sums<Real>{sums, kStride, sums, kStride});
    GruStatesAfterReset(act, UnitsOf(plan, p, rows), sums, task.old_h,
                        GatesOf(plan, step, p, first), task.new_h);
  }
}

template <typename Real, typename Activations>
void ForwardRowsWith(const RnnPlan<Real>& plan, const Activations& act,
                     int64_t first, int64_t last, Real* memory) {
  Scratch scratch(memory);
  const ForwardTask<Real> task(plan, last - first, &scratch);
  for (int64_t r = 0; r < task.rows && task.reset_h; ++r)
    task.reset_rows[r] = task.reset_h + r * plan.shape.units;
  for (int64_t step = 0; step < plan.steps[first]; ++step) {
    const int64_t end = plan.active[step] < last ? plan.active[step] : last;
    const int64_t rows = end - first;
    for (int64_t r = 0; r < rows; ++r) {
      task.x[r] = InputsOf(plan, first + r, step);
      task.h[r] = task.old_h[r] = OldStateOf(plan, first + r, step);
      task.new_h[r] = StateOf(plan, first + r, step);
    }
    MaskRows(plan, plan.input_dropout, plan.input_dropouts, plan.shape.features,
             first, rows, task.rows, task.x, task.masked_x);
    MaskRows(plan, plan.recurrent_dropout, plan.recurrent_dropouts,
             plan.shape.units, first, rows, task.rows, task.h, task.masked_h);
    ForwardStep(plan, act, task, step, first, rows);
  }
}

inline bool AreUsual(const RnnOptions& options) {
  return options.activation == RnnActivation::kTanh &&
         options.recurrent_activation == RnnActivation::kSigmoid;
}

template <typename Real>
void ForwardRows(const RnnPlan<Real>& plan, int64_t first, int64_t last,
                 Real* memory) {
  if (AreUsual(plan.options))
    return ForwardRowsWith(plan, UsualActivations(), first, last, memory);
  const AnyActivations act{plan.options.activation,
                           plan.options.recurrent_activation};
  ForwardRowsWith(plan, act, first, last, memory);
}

template <typename Real>
int64_t ForwardScratch(const RnnPlan<Real>& plan, int64_t rows) {
  Scratch scratch(nullptr);
  const ForwardTask<Real> task(plan, rows, &scratch);
  return scratch.bytes();
}

// ----------------------------------------------------------------- backward

template <typename Real>
struct BackwardTask {
  int64_t rows;
  const Real **old_h, **h, **grad_outputs, **dz, **dropout;
  Real** grads;        // where the rows of a product go
  Real* summed;        // gradients of outputs, (rows, U)
  Real* product;       // (rows, 4 vectors)
  Real* grad_reset_h;  // (rows, grad_stride)

  BackwardTask(const RnnPlan<Real>& plan, int64_t row_count, Scratch* scratch)
      : rows(row_count) {
    old_h = scratch->Take<const Real*>(rows);
    h = scratch->Take<const Real*>(rows);
    grad_outputs = scratch->Take<const Real*>(rows);
    dz = scratch->Take<const Real*>(rows);
    dropout = scratch->Take<const Real*>(rows);
    grads = scratch->Take<Real*>(rows);
    summed = scratch->Take<Real>(plan.masked ? rows * plan.shape.units : 0);
    product = scratch->Take<Real>(rows * kRnnSlots * kLanesOf<Real>);
    grad_reset_h = scratch->Take<Real>(
        ForwardTask<Real>::ResetsFirst(plan) ? rows * plan.grad_stride : 0);
  }
};

// The gradient of the output of a step: it is the output of the masked steps
// behind it, too, unless those are 0. nullptr = zero.
template <typename Real>
const Real* GradOfOutput(const RnnPlan<Real>& plan, int64_t row, int64_t step,
                         Real* summed) {
  if (!plan.grad_outputs) return nullptr;
  const int64_t units = plan.shape.units, timesteps = plan.shape.timesteps;
  const bool is_last = step + 1 == plan.steps[row];
  const int64_t position = Position(plan, row, step);
  int64_t next = position + 1;
  if (!plan.options.zero_output_for_mask)
    next = is_last ? timesteps : Position(plan, row, step + 1);
  if (!plan.options.return_sequences)
    return next == timesteps ? plan.grad_outputs + plan.order[row] * units
                             : nullptr;
  const Real* const grads =
      plan.grad_outputs + (plan.order[row] * timesteps + position) * units;
  if (next == position + 1) return grads;
  for (int64_t u = 0; u < units; ++u) summed[u] = grads[u];
  for (int64_t j = 1; j < next - position; ++j)
    for (int64_t u = 0; u < units; ++u) summed[u] += grads[j * units + u];
  return summed;
}

// Some vectors of dz times the rows of K^T or R^T that belong to them.
template <typename Real>
Factor<Real> FactorOfGradients(const RnnPlan<Real>& plan,
                               const RnnChunk<Real>& chunk, bool recurrent,
                               int64_t column_panel, int vector, int count,
                               const Real* const* dz) {
  constexpr int64_t kLanesHere = kLanesOf<Real>;
  const int64_t columns = recurrent ? plan.shape.units : plan.shape.features;
  const int64_t width = ColumnVectors<Real>(columns, column_panel) * kLanesHere;
  const int64_t depth = RnnVectors(plan.cell) * kLanesHere;
  const Real* const weights =
      (recurrent ? plan.recurrent_rows : plan.kernel_rows) +
      column_panel * plan.panels * depth * kRnnSlots * kLanesHere +
      vector * kLanesHere * width;
  const int slot = recurrent ? RnnRecurrentSlot(plan.cell) : 0;
  return {dz,
          (slot + vector) * kLanesHere,
          weights,
          width,
          count * kLanesHere,
          plan.panels,
          chunk.flat_rows * kRnnSlots * kLanesHere,
          depth * width};
}

// to += product, times the rows of `dropout` if there are any.
template <typename Real>
void AddColumns(const Real* product, const Real* const* dropout, int64_t rows,
                int64_t column, int64_t columns, Real* const* to) {
  constexpr int64_t kWidth = kRnnSlots * kLanesOf<Real>;
  const int64_t left = columns - column, count = left < kWidth ? left : kWidth;
  for (int64_t r = 0; r < rows; ++r) {
    const Real* const from = product + r * kWidth;
    Real* const sums = to[r] + column;
    for (int64_t i = 0; i < count; ++i)
      sums[i] += dropout ? from[i] * dropout[r][column + i] : from[i];
  }
}

// What a product is added to.
enum class Begin { kAtZero, kAtWhatIsThere };

// The gradient of what K or R was multiplied with: dz K^T, or some vectors of
// it. With dropout each gate's part is multiplied by the mask of the gate.
template <typename Real>
void GradOfFactor(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
                  const BackwardTask<Real>& task, bool recurrent, int vector,
                  int count, int64_t first, int64_t rows, Begin begin) {
  constexpr int64_t kWidth = kRnnSlots * kLanesOf<Real>;
  const int64_t columns = recurrent ? plan.shape.units : plan.shape.features;
  const Real* const dropout =
      recurrent ? plan.recurrent_dropout : plan.input_dropout;
  const int dropouts =
      recurrent ? plan.recurrent_dropouts : plan.input_dropouts;
  const int times = dropouts > 1 ? count : 1;
  if (begin == Begin::kAtZero)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < columns; ++i) task.grads[r][i] = 0;
  for (int i = 0; i < times; ++i) {
    const int from = dropouts > 1 ? vector + i : vector;
    const int gate = dropouts > 1 ? RnnGateOf(plan.cell, recurrent, from) : 0;
    for (int64_t r = 0; r < rows && dropout; ++r)
      task.dropout[r] =
          dropout + (gate * plan.shape.batch + plan.order[first + r]) * columns;
    for (int64_t q = 0; q * kWidth < columns; ++q) {
      MultiplyPlain(ColumnVectors<Real>(columns, q),
                    FactorOfGradients(plan, chunk, recurrent, q, from,
                                      dropouts > 1 ? 1 : count, task.dz),
                    rows, Sums<Real>{plan.zeros, 0, task.product, kWidth});
      AddColumns(task.product, dropout ? task.dropout : nullptr, rows,
                 q * kWidth, columns, task.grads);
    }
  }
}

// The same for R without dropout: straight into grad_h.
template <typename Real>
void GradOfState(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
                 const BackwardTask<Real>& task, int count, int64_t rows,
                 Begin begin, Real* grad_h) {
  constexpr int64_t kWidth = kRnnSlots * kLanesOf<Real>;
  for (int64_t q = 0; q * kWidth < plan.shape.units; ++q) {
    Real* const to = grad_h + q * kWidth;
    Sums<Real> sums{to, plan.grad_stride, to, plan.grad_stride};
    if (begin == Begin::kAtZero) sums.begin = plan.zeros, sums.begin_stride = 0;
    MultiplyPlain(ColumnVectors<Real>(plan.shape.units, q),
                  FactorOfGradients(plan, chunk, true, q, 0, count, task.dz),
                  rows, sums);
  }
}

template <typename Real, typename Activations>
void BackwardStep(const RnnPlan<Real>& plan, const Activations& act,
                  const RnnChunk<Real>& chunk, const BackwardTask<Real>& task,
                  int64_t step, int64_t first, int64_t rows) {
  constexpr int64_t kLanesHere = kLanesOf<Real>;
  const int64_t flat =
      chunk.offsets[step - chunk.first_step] + first;  // of the first row
  const StateGradients<Real> grads = {
      task.grad_outputs, plan.grad_h + first * plan.grad_stride,
      plan.grad_stride, plan.grad_c + first * plan.padded_units,
      plan.padded_units};
  const auto dz_of = [&](int64_t panel) {
    return chunk.dz + (panel * chunk.flat_rows + flat) * kRnnSlots * kLanesHere;
  };
  for (int64_t r = 0; r < rows; ++r)
    task.dz[r] = chunk.dz + (flat + r) * kRnnSlots * kLanesHere;
  for (int64_t p = 0; p < plan.panels; ++p) {
    const PanelUnits panel = UnitsOf(plan, p, rows);
    if (plan.cell == RnnCell::kLstm)
      LstmGradients(act, panel, GatesOf(plan, step, p, first),
                    CellsOf(plan, step, p, first),
                    OldCells(plan, step, p, first), grads, dz_of(p));
    else if (plan.cell == RnnCell::kGru)
      GruGradients(act, panel, GatesOf(plan, step, p, first), task.old_h, grads,
                   plan.options.reset_after, dz_of(p));
    else
      SimpleGradients(act, panel, task.h, grads, dz_of(p));
  }
  int vectors = RnnVectors(plan.cell);
  if (ForwardTask<Real>::ResetsFirst(plan)) {
    constexpr int64_t kWidth = kRnnSlots * kLanesHere;
    for (int64_t q = 0; q * kWidth < plan.shape.units; ++q) {
      // Vector 2 of R's belongs to dz's slot 0.
      Factor<Real> factor =
          FactorOfGradients(plan, chunk, true, q, 2, 1, task.dz);
      factor.row_offset = 0;
      MultiplyPlain(ColumnVectors<Real>(plan.shape.units, q), factor, rows,
                    Sums<Real>{plan.zeros, 0, task.grad_reset_h + q * kWidth,
                               plan.grad_stride});
    }
    const int gate = plan.recurrent_dropouts > 1 ? 2 : 0;
    for (int64_t r = 0; r < rows && plan.recurrent_dropout; ++r)
      task.dropout[r] =
          plan.recurrent_dropout +
          (gate * plan.shape.batch + plan.order[first + r]) * plan.shape.units;
    for (int64_t p = 0; p < plan.panels; ++p)
      GruResetGradients(act, UnitsOf(plan, p, rows),
                        GatesOf(plan, step, p, first), task.old_h,
                        plan.recurrent_dropout ? task.dropout : nullptr,
                        task.grad_reset_h, plan.grad_stride, grads, dz_of(p));
    vectors = 2;
  }
  const bool starts_at_zero = plan.cell != RnnCell::kGru;
  const Begin begin = starts_at_zero ? Begin::kAtZero : Begin::kAtWhatIsThere;
  if (!plan.recurrent_dropout) {
    GradOfState(plan, chunk, task, vectors, rows, begin, grads.h);
  } else {
    for (int64_t r = 0; r < rows; ++r)
      task.grads[r] = grads.h + r * grads.h_stride;
    GradOfFactor(plan, chunk, task, true, 0, vectors, first, rows, begin);
  }
  if (!plan.grad_inputs) return;
  for (int64_t r = 0; r < rows; ++r)
    task.grads[r] =
        plan.grad_inputs + (plan.order[first + r] * plan.shape.timesteps +
                            TimeOf(plan, first + r, step)) *
                               plan.shape.features;
  GradOfFactor(plan, chunk, task, false, 0, RnnVectors(plan.cell), first, rows,
               Begin::kAtZero);
}

template <typename Real, typename Activations>
void BackwardRowsWith(const RnnPlan<Real>& plan, const Activations& act,
                      const RnnChunk<Real>& chunk, int64_t first, int64_t last,
                      Real* memory) {
  Scratch scratch(memory);
  const BackwardTask<Real> task(plan, last - first, &scratch);
  const int64_t units = plan.shape.units, features = plan.shape.features;
  for (int64_t step = chunk.last_step - 1; step >= chunk.first_step; --step) {
    const int64_t end = plan.active[step] < last ? plan.active[step] : last;
    const int64_t rows = end - first;
    if (rows <= 0) continue;
    const int64_t flat = chunk.offsets[step - chunk.first_step] + first;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = first + r;
      task.h[r] = StateOf(plan, row, step);
      task.old_h[r] = OldStateOf(plan, row, step);
      task.grad_outputs[r] =
          GradOfOutput(plan, row, step, task.summed + r * units);
      chunk.x[flat + r] = InputsOf(plan, row, step);
      chunk.h[flat + r] = task.old_h[r];
    }
    MaskRows(plan, plan.input_dropout, plan.input_dropouts, features, first,
             rows, chunk.flat_rows, chunk.x + flat,
             chunk.masked_x + flat * features);
    MaskRows(plan, plan.recurrent_dropout, plan.recurrent_dropouts, units,
             first, rows, chunk.flat_rows, chunk.h + flat,
             chunk.masked_h + flat * units);
    if (ForwardTask<Real>::ResetsFirst(plan)) {
      // R_h was multiplied with r h: gate 2 has rows of its own.
      const bool masked = plan.recurrent_dropouts > 1;
      const Real* const* const from =
          chunk.h + (masked ? 2 * chunk.flat_rows : 0) + flat;
      for (int64_t r = 0; r < rows; ++r) {
        Real* const to =
            chunk.masked_h + (2 * chunk.flat_rows + flat + r) * units;
        for (int64_t p = 0; p < plan.panels; ++p) {
          const PanelUnits panel = UnitsOf(plan, p, rows);
          const Real* const gates =
              GatesOf(plan, step, p, first + r) + 2 * kLanesOf<Real>;
          for (int64_t i = 0; i < panel.count; ++i)
            to[panel.unit + i] = gates[i] * from[r][panel.unit + i];
        }
        if (!masked) chunk.h[chunk.flat_rows + flat + r] = chunk.h[flat + r];
        chunk.h[2 * chunk.flat_rows + flat + r] = to;
      }
    }
    BackwardStep(plan, act, chunk, task, step, first, rows);
  }
}

template <typename Real>
void BackwardRows(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
                  int64_t first, int64_t last, Real* memory) {
  if (AreUsual(plan.options))
    return BackwardRowsWith(plan, UsualActivations(), chunk, first, last,
                            memory);
  const AnyActivations act{plan.options.activation,
                           plan.options.recurrent_activation};
  BackwardRowsWith(plan, act, chunk, first, last, memory);
}

template <typename Real>
int64_t BackwardScratch(const RnnPlan<Real>& plan, int64_t rows) {
  Scratch scratch(nullptr);
  const BackwardTask<Real> task(plan, rows, &scratch);
  return scratch.bytes();
}

// ------------------------------------------------------ gradients of weights

template <typename Real>
void WeightsOfPanel(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
                    const RnnWeightGradients<Real>& gradients, bool recurrent,
                    int64_t panel, int64_t first, int64_t last) {
  constexpr int64_t kLanesHere = kLanesOf<Real>;
  const int64_t depth = recurrent ? plan.shape.units : plan.shape.features;
  const int vectors = RnnVectors(plan.cell);
  const int64_t stride = vectors * kLanesHere;
  const Real* const dz =
      chunk.dz + panel * chunk.flat_rows * kRnnSlots * kLanesHere;
  Real* const to = (recurrent ? gradients.recurrent_kernel : gradients.kernel) +
                   panel * depth * stride;
  const Real* const* const rows = recurrent ? chunk.h : chunk.x;
  const int64_t count = chunk.used_rows;
  const int slot = recurrent ? RnnRecurrentSlot(plan.cell) : 0;
  const bool resets = recurrent && ForwardTask<Real>::ResetsFirst(plan);
  const int gates = recurrent ? plan.recurrent_dropouts : plan.input_dropouts;
  if (gates > 1 || resets) {
    for (int v = 0; v < vectors; ++v) {
      const int gate = RnnGateOf(plan.cell, recurrent, v);
      // The gradient of h~ is in slot 0 only, if r multiplies h.
      const int from = resets && v == 2 ? 0 : slot + v;
      MultiplyOuter<1>(rows + gate * chunk.flat_rows, first, last,
                       dz + from * kLanesHere, count, to + v * kLanesHere,
                       stride);
    }
  } else if (vectors == 3) {
    MultiplyOuter<3>(rows, first, last, dz + slot * kLanesHere, count, to,
                     stride);
  } else {
    MultiplyOuter<4>(rows, first, last, dz, count, to, stride);
  }
  if (recurrent || first > 0) return;
  Real* const bias = gradients.bias + panel * kRnnSlots * kLanesHere;
  for (int v = 0; v < kRnnSlots; ++v) {
    VecOf<Real> sum{};
    for (int64_t i = 0; i < count; ++i)
      sum = sum + Load(dz + (i * kRnnSlots + v) * kLanesHere);
    Store(bias + v * kLanesHere, Load(bias + v * kLanesHere) + sum);
  }
}

}  // namespace
}  // namespace hw3tf
