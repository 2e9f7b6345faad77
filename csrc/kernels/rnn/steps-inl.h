// Some rows through all their steps, and back through those of a chunk.

#pragma once

#include "kernels/rnn/cell-inl.h"
#include "kernels/rnn/product-inl.h"
#include "kernels/vector/convert-inl.h"

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
  const int64_t at = plan.order[row] * plan.input_batch_stride +
                     TimeOf(plan, row, step) * plan.input_time_stride;
  // Read by PlaceInputs alone.
  if (kPairs) return reinterpret_cast<const Real*>(plan.half_inputs + at);
  return plan.inputs + at;
}

// h of a step, in the array of all steps.
template <typename Real>
inline Real* StateOf(const RnnPlan<Real>& plan, int64_t row, int64_t step) {
  const int64_t entry = plan.order[row] * plan.shape.timesteps;
  return plan.h + (entry + Position(plan, row, step)) * plan.shape.units;
}

template <typename Real>
inline const Real* InitialState(const RnnPlan<Real>& plan, int64_t row) {
  if (!plan.initial_h) return plan.zeros;
  return plan.initial_h + plan.order[row] * plan.shape.units;
}

// h before a step, in the array of all steps.
template <typename Real>
inline const Real* OldStateOf(const RnnPlan<Real>& plan, int64_t row,
                              int64_t step) {
  return step > 0 ? StateOf(plan, row, step - 1) : InitialState(plan, row);
}

// Of the forward pass: h of this step and of the one before.
template <typename Real>
inline Real* StateNow(const RnnPlan<Real>& plan, int64_t row, int64_t step) {
  return plan.h_now + (step % 2 * plan.rows + row) * plan.shape.units;
}

template <typename Real>
inline const Real* OldStateNow(const RnnPlan<Real>& plan, int64_t row,
                               int64_t step) {
  return step > 0 ? StateNow(plan, row, step - 1) : InitialState(plan, row);
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

template <typename Real>
inline void CopyRow(const Real* from, int64_t count, Real* to) {
  __builtin_memcpy(to, from, static_cast<size_t>(count) * sizeof(Real));
}

// A row as the products read it, times a mask if there is one.
template <typename Real>
inline void PlaceRow(const Real* from, const Real* mask, int64_t width,
                     Real* to) {
  if (mask) return MultiplyRow(from, mask, width, to);
  CopyRow(from, width, to);
}

#if defined(HW3TF_BFLOAT16_PRODUCTS)
inline int64_t PlacedFeatures(int64_t features) { return Units(features); }

// x, elements of the caller's, in pairs. Calls with a mask of the inputs are
// not made so: times the mask they would have to be rounded.
inline void PlaceInputs(const float* from, const float*, int64_t features,
                        float* to) {
  const auto bytes = static_cast<size_t>(2 * features);
  __builtin_memcpy(to, from, bytes);
  __builtin_memset(reinterpret_cast<char*>(to) + bytes, 0,
                   static_cast<size_t>(4 * PlacedFeatures(features)) - bytes);
}
#else
inline int64_t PlacedFeatures(int64_t features) { return features; }

template <typename Real>
inline void PlaceInputs(const Real* from, const Real* mask, int64_t features,
                        Real* to) {
  PlaceRow(from, mask, features, to);
}
#endif

// The rows that K or R multiply, copied to `placed`, (gates, rows, width): as
// they are, times one dropout mask, or times one for each gate. Rows of the
// caller are often a power of two apart, where all of them share a few lines of
// the caches: the backward pass of the simple RNN, 64,256,128,128 on two
// threads, took 16.5 ms when it read them there, 10.8 ms so.
template <typename Real>
void PlaceRows(const RnnPlan<Real>& plan, bool is_input, int64_t first,
               int64_t rows, int64_t gate_rows, const Real** pointers,
               Real* placed) {
  const Real* const dropout =
      is_input ? plan.input_dropout : plan.recurrent_dropout;
  const int gates = is_input ? plan.input_dropouts : plan.recurrent_dropouts;
  const int64_t width = is_input ? plan.shape.features : plan.shape.units;
  const int64_t stride = is_input ? PlacedFeatures(width) : width;
  // The rows of gate 0 are read until the end.
  for (int g = dropout ? gates - 1 : 0; g >= 0; --g)
    for (int64_t r = 0; r < rows; ++r) {
      Real* const to = placed + (g * gate_rows + r) * stride;
      const int64_t entry = g * plan.shape.batch + plan.order[first + r];
      const Real* const mask = dropout ? dropout + entry * width : nullptr;
      if (is_input)
        PlaceInputs(pointers[r], mask, width, to);
      else
        PlaceRow(pointers[r], mask, width, to);
      pointers[g * gate_rows + r] = to;
    }
}

// Gates that have rows of their own to multiply K or R by.
inline int GatesPlaced(int dropouts) { return dropouts > 1 ? dropouts : 1; }

// What a task of the forward pass has beside the plan.
template <typename Real>
struct ForwardTask {
  int64_t rows;  // room
  Real* sums;    // (panels, rows, 4 vectors), of all panels if r multiplies h
  const Real **x, **h, **old_h, **reset_rows;  // pointers of rows
  Real** new_h;
  Real *placed_x, *placed_h;
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
    placed_x = scratch->Take<Real>(GatesPlaced(plan.input_dropouts) * rows *
                                   PlacedFeatures(plan.shape.features));
    placed_h =
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
  const int64_t depth =
      recurrent ? plan.shape.units : Units(plan.shape.features);
  const int64_t stride = RnnVectors(plan.cell) * kLanesOf<Real>;
  const Real* const weights =
      (recurrent ? plan.recurrent_kernel : plan.kernel) +
      panel * depth * stride + vector * kLanesOf<Real>;
  return {rows, 0, weights, stride, depth, 1, 0, 0};
}

// sums = begin + x K, `count` vectors of a panel.
template <typename Real>
inline void MultiplyInputs(int count, const Factor<Real>& factor, int64_t rows,
                           const Sums<Real>& sums) {
  constexpr Stored kStored = kPairs ? Stored::kInPairs : Stored::kPlainly;
  Multiply<kStored>(count, factor, rows, sums);
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
    const Factor<Real> factor = FactorOf(plan, recurrent, panel, rows);
    const Sums<Real> both{to, kStride, to, kStride};
    if (!recurrent) return MultiplyInputs(count, factor, row_count, both);
    return Multiply(count, factor, row_count, both);
  }
  for (int v = 0; v < count; ++v) {
    const int gate = RnnGateOf(plan.cell, recurrent, v);
    Real* const to = sums + (slot + v) * kLanesOf<Real>;
    const Factor<Real> factor =
        FactorOf(plan, recurrent, panel, rows + gate * gate_rows, v);
    Multiply(1, factor, row_count, Sums<Real>{to, kStride, to, kStride});
  }
}

template <typename Real>
void BeginWithBias(const RnnPlan<Real>& plan, int64_t panel, int64_t rows,
                   Real* sums) {
  constexpr int64_t kLanesHere = kLanesOf<Real>;
  const Real* const bias = plan.bias + panel * kRnnSlots * kLanesHere;
  for (int64_t r = 0; r < rows; ++r)
    for (int v = 0; v < kRnnSlots; ++v)
      Store(sums + (r * kRnnSlots + v) * kLanesHere,
            Load(bias + v * kLanesHere));
}

// K's part for all rows, then R's, and not both for a tile of rows: the panels
// of both would not fit into the first cache together (1 to 2 % on a Zen 5).
template <typename Real>
void SumsOfPanel(const RnnPlan<Real>& plan, const ForwardTask<Real>& task,
                 int64_t panel, int64_t rows, Real* sums) {
  constexpr int64_t kStride = kRnnSlots * kLanesOf<Real>;
  const bool resets = ForwardTask<Real>::ResetsFirst(plan);
  const int vectors = VectorsOf(plan, panel);
  if (plan.input_dropouts <= 1 && plan.cell != RnnCell::kGru) {
    const Real* const bias = plan.bias + panel * kStride;
    MultiplyInputs(vectors, FactorOf(plan, false, panel, task.x), rows,
                   Sums<Real>{bias, 0, sums, kStride});
  } else {
    BeginWithBias(plan, panel, rows, sums);
    AddGateByGate(plan, false, panel, task.x, task.rows, plan.input_dropouts,
                  vectors, rows, sums);
  }
  AddGateByGate(plan, true, panel, task.h, task.rows, plan.recurrent_dropouts,
                resets ? 2 : vectors, rows, sums);
}

// From the sums of a panel to the states; not of the GRU whose r multiplies h.
template <typename Real, typename Activations>
void PanelStates(const RnnPlan<Real>& plan, const Activations& act,
                 int64_t step, int64_t p, int64_t first, int64_t rows,
                 const Real* sums, const Real* const* old_h,
                 Real* const* new_h) {
  const PanelUnits panel = UnitsOf(plan, p, rows);
  Real* const gates = GatesOf(plan, step, p, first);
  if (plan.cell == RnnCell::kLstm)
    LstmStates(act, panel, sums, OldCells(plan, step, p, first),
               CellsOf(plan, step, p, first), gates, new_h);
  else if (plan.cell == RnnCell::kGru)
    GruStates(act, panel, sums, old_h, gates, new_h);
  else
    SimpleStates(act, panel, sums, new_h);
}

template <typename Real, typename Activations>
void ForwardStep(const RnnPlan<Real>& plan, const Activations& act,
                 const ForwardTask<Real>& task, int64_t step, int64_t first,
                 int64_t rows) {
  constexpr int64_t kStride = kRnnSlots * kLanesOf<Real>;
  const bool resets = ForwardTask<Real>::ResetsFirst(plan);
  for (int64_t p = 0; p < plan.panels; ++p) {
    Real* const sums = task.sums + (resets ? p * task.rows * kStride : 0);
    SumsOfPanel(plan, task, p, rows, sums);
    if (resets)
      GruResets(act, UnitsOf(plan, p, rows), sums,
                task.h + (plan.recurrent_dropouts > 1 ? 2 * task.rows : 0),
                task.reset_h, plan.shape.units);
    else
      PanelStates(plan, act, step, p, first, rows, sums, task.old_h,
                  task.new_h);
  }
  if (!resets) return;
  for (int64_t p = 0; p < plan.panels; ++p) {
    Real* const sums = task.sums + p * task.rows * kStride;
    const Factor<Real> factor = FactorOf(plan, true, p, task.reset_rows, 2);
    Multiply(1, factor, rows, Sums<Real>{sums, kStride, sums, kStride});
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
      task.h[r] = task.old_h[r] = OldStateNow(plan, first + r, step);
      task.new_h[r] = StateNow(plan, first + r, step);
    }
    PlaceRows(plan, true, first, rows, task.rows, task.x, task.placed_x);
    if (plan.recurrent_dropout)
      PlaceRows(plan, false, first, rows, task.rows, task.h, task.placed_h);
    ForwardStep(plan, act, task, step, first, rows);
    for (int64_t r = 0; r < rows && plan.h; ++r)
      CopyRow(task.new_h[r], plan.shape.units, StateOf(plan, first + r, step));
  }
}

template <typename Body>
void WithActivations(const RnnOptions& options, const Body& body) {
  if (options.activation == RnnActivation::kTanh &&
      options.recurrent_activation == RnnActivation::kSigmoid)
    return body(UsualActivations());
  body(AnyActivations{options.activation, options.recurrent_activation});
}

template <typename Real>
void ForwardRows(const RnnPlan<Real>& plan, int64_t first, int64_t last,
                 Real* memory) {
  WithActivations(plan.options, [&](const auto& act) {
    ForwardRowsWith(plan, act, first, last, memory);
  });
}

template <typename Real>
int64_t ForwardScratch(const RnnPlan<Real>& plan, int64_t rows) {
  Scratch scratch(nullptr);
  const ForwardTask<Real> task(plan, rows, &scratch);
  return scratch.bytes();
}

// ------------------------------------------------- forward, x K in advance

// Rows of the steps from `step` on, as many as are computed ahead.
template <typename Real>
struct AheadTask {
  int64_t rows;  // room
  const Real **x, **h, **old_h;
  Real** new_h;
  Real *placed_x, *placed_h;

  AheadTask(const RnnPlan<Real>& plan, const RnnAhead<Real>& ahead,
            Scratch* scratch)
      : rows(ahead.most_steps * plan.rows) {
    x = scratch->Take<const Real*>(kRnnMostGates * rows);
    h = scratch->Take<const Real*>(kRnnMostGates * plan.rows);
    old_h = scratch->Take<const Real*>(plan.rows);
    new_h = scratch->Take<Real*>(plan.rows);
    placed_x = scratch->Take<Real>((kPairs ? 1 : plan.input_dropouts) * rows *
                                   PlacedFeatures(plan.shape.features));
    placed_h = scratch->Take<Real>(plan.recurrent_dropouts * plan.rows *
                                   plan.shape.units);
  }
};

template <typename Real>
int64_t AheadScratch(const RnnPlan<Real>& plan, const RnnAhead<Real>& ahead) {
  Scratch scratch(nullptr);
  const AheadTask<Real> task(plan, ahead, &scratch);
  return scratch.bytes();
}

// A step begins at row most_steps' * rows of `sums`, whether all rows take it
// or not.
template <typename Real>
void InputsAhead(const RnnPlan<Real>& plan, const RnnAhead<Real>& ahead,
                 int64_t step, int64_t first, int64_t last, Real* memory) {
  constexpr int64_t kStride = kRnnSlots * kLanesOf<Real>;
  Scratch scratch(memory);
  const AheadTask<Real> task(plan, ahead, &scratch);
  const int64_t longest = plan.steps[0], end = step + ahead.most_steps;
  int64_t rows = 0;
  for (int64_t s = step; s < end && s < longest; ++s, rows += plan.rows) {
    // Rows that have no such step are multiplied in vain.
    for (int64_t r = 0; r < plan.rows; ++r)
      task.x[rows + r] = InputsOf(plan, r, s < plan.steps[r] ? s : 0);
    if (kPairs || plan.input_dropout)
      PlaceRows(plan, true, 0, plan.rows, task.rows, task.x + rows,
                task.placed_x + rows * PlacedFeatures(plan.shape.features));
  }
  for (int64_t p = first; p < last; ++p) {
    Real* const sums = ahead.sums + p * task.rows * kStride;
    BeginWithBias(plan, p, rows, sums);
    AddGateByGate(plan, false, p, task.x, task.rows, plan.input_dropouts,
                  VectorsOf(plan, p), rows, sums);
  }
}

template <typename Real, typename Activations>
void StepAheadWith(const RnnPlan<Real>& plan, const Activations& act,
                   const RnnAhead<Real>& ahead, int64_t step, int64_t first,
                   int64_t last, Real* memory) {
  constexpr int64_t kStride = kRnnSlots * kLanesOf<Real>;
  Scratch scratch(memory);
  const AheadTask<Real> task(plan, ahead, &scratch);
  const int64_t rows = plan.active[step];
  for (int64_t r = 0; r < rows; ++r) {
    task.h[r] = task.old_h[r] = OldStateNow(plan, r, step);
    task.new_h[r] = StateNow(plan, r, step);
  }
  if (plan.recurrent_dropout)
    PlaceRows(plan, false, 0, rows, plan.rows, task.h, task.placed_h);
  const int64_t at = step % ahead.most_steps * plan.rows;
  for (int64_t p = first; p < last; ++p) {
    Real* const sums = ahead.sums + (p * task.rows + at) * kStride;
    AddGateByGate(plan, true, p, task.h, plan.rows, plan.recurrent_dropouts,
                  VectorsOf(plan, p), rows, sums);
    PanelStates(plan, act, step, p, 0, rows, sums, task.old_h, task.new_h);
    const PanelUnits panel = UnitsOf(plan, p, rows);
    for (int64_t r = 0; r < rows && plan.h; ++r)
      CopyRow(task.new_h[r] + panel.unit, panel.count,
              StateOf(plan, r, step) + panel.unit);
  }
}

template <typename Real>
void StepAhead(const RnnPlan<Real>& plan, const RnnAhead<Real>& ahead,
               int64_t step, int64_t first, int64_t last, Real* memory) {
  WithActivations(plan.options, [&](const auto& act) {
    StepAheadWith(plan, act, ahead, step, first, last, memory);
  });
}

// ----------------------------------------------------------------- backward

template <typename Real>
struct BackwardTask {
  int64_t rows;  // room
  const Real **h, **grad_outputs, **dz, **dropout;
  Real* summed;        // gradients of outputs, (rows, U)
  Real* placed_h;      // (rows, U)
  Real* product;       // (rows, 4 vectors)
  Real* grad_reset_h;  // (rows, grad_stride)

  BackwardTask(const RnnPlan<Real>& plan, int64_t row_count, Scratch* scratch)
      : rows(row_count) {
    h = scratch->Take<const Real*>(rows);
    grad_outputs = scratch->Take<const Real*>(rows);
    dz = scratch->Take<const Real*>(rows);
    dropout = scratch->Take<const Real*>(rows);
    summed = scratch->Take<Real>(rows * plan.shape.units);
    placed_h = scratch->Take<Real>(rows * plan.shape.units);
    product = scratch->Take<Real>(rows * kRnnSlots * kLanesOf<Real>);
    grad_reset_h = scratch->Take<Real>(
        ForwardTask<Real>::ResetsFirst(plan) ? rows * plan.grad_stride : 0);
  }
};

template <typename Real>
int64_t BackwardScratch(const RnnPlan<Real>& plan, int64_t rows) {
  Scratch scratch(nullptr);
  const BackwardTask<Real> task(plan, rows, &scratch);
  return scratch.bytes();
}

// The gradient of the output of a step: it is the output of the masked steps
// behind it, too, unless those are 0. Written to `summed`; nullptr = zero.
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
  const Real* grads = plan.grad_outputs + plan.order[row] * units;
  if (!plan.options.return_sequences) {
    if (next != timesteps) return nullptr;
    CopyRow(grads, units, summed);
    return summed;
  }
  grads = plan.grad_outputs + (plan.order[row] * timesteps + position) * units;
  CopyRow(grads, units, summed);
  for (int64_t j = 1; j < next - position; ++j)
    for (int64_t u = 0; u < units; ++u) summed[u] += grads[j * units + u];
  return summed;
}

// Some vectors of dz times the rows of K^T or R^T that belong to them, in a
// column panel. `dz`: of panel 0.
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

template <typename Real>
inline void MultiplyGradients(int vectors, const Factor<Real>& factor,
                              int64_t rows, const Sums<Real>& sums) {
  Multiply<Stored::kInParts>(vectors, factor, rows, sums);
}

// How many columns of a column panel there are.
inline int64_t ColumnsAt(int64_t columns, int64_t column, int64_t width) {
  return columns - column < width ? columns - column : width;
}

// The flat row at which those of a step begin.
template <typename Real>
inline int64_t FlatRow(const RnnChunk<Real>& chunk, int64_t step) {
  return chunk.offsets[step - chunk.first_step];
}

template <typename Real>
inline Real* GradientsOf(const RnnChunk<Real>& chunk, int64_t panel,
                         int64_t flat_row) {
  return chunk.dz +
         (panel * chunk.flat_rows + flat_row) * kRnnSlots * kLanesOf<Real>;
}

template <typename Real>
inline void PointAtGradients(const RnnChunk<Real>& chunk, int64_t flat_row,
                             int64_t rows, const Real** dz) {
  for (int64_t r = 0; r < rows; ++r)
    dz[r] = GradientsOf(chunk, 0, flat_row + r);
}

// What R was multiplied by at gate h~, r h, as rows of their own.
template <typename Real>
void ResetRows(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
               int64_t step, int64_t first, int64_t rows, int64_t flat) {
  const int64_t units = plan.shape.units;
  const bool gate_by_gate = plan.recurrent_dropouts > 1;
  const Real** const from =
      chunk.h + (gate_by_gate ? 2 * chunk.flat_rows : 0) + flat;
  for (int64_t r = 0; r < rows; ++r) {
    Real* const to = chunk.placed_h + (2 * chunk.flat_rows + flat + r) * units;
    for (int64_t p = 0; p < plan.panels; ++p) {
      const PanelUnits panel = UnitsOf(plan, p, rows);
      const Real* const gates =
          GatesOf(plan, step, p, first + r) + 2 * kLanesOf<Real>;
      MultiplyRow(gates, from[r] + panel.unit, panel.count, to + panel.unit);
    }
    if (!gate_by_gate) chunk.h[chunk.flat_rows + flat + r] = from[r];
    chunk.h[2 * chunk.flat_rows + flat + r] = to;
  }
}

// What the gradients of weights and inputs need of a step.
template <typename Real>
void FillChunk(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
               int64_t step, int64_t first, int64_t rows) {
  const int64_t units = plan.shape.units, features = plan.shape.features;
  const int64_t flat = FlatRow(chunk, step) + first;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = first + r;
    chunk.x[flat + r] = InputsOf(plan, row, step);
    chunk.h[flat + r] = OldStateOf(plan, row, step);
    chunk.row[flat + r] = static_cast<int32_t>(row);
    if (plan.grad_inputs)
      chunk.grad_x[flat + r] =
          plan.grad_inputs +
          (plan.order[row] * plan.shape.timesteps + TimeOf(plan, row, step)) *
              features;
  }
  PlaceRows(plan, true, first, rows, chunk.flat_rows, chunk.x + flat,
            chunk.placed_x + flat * features);
  PlaceRows(plan, false, first, rows, chunk.flat_rows, chunk.h + flat,
            chunk.placed_h + flat * units);
  if (ForwardTask<Real>::ResetsFirst(plan))
    ResetRows(plan, chunk, step, first, rows, flat);
}

// The gradient of h before a step, in the column panels [first_column,
// last_column): of some vectors of dz.
template <typename Real>
void GradOfState(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
                 const BackwardTask<Real>& task, int64_t step, int count,
                 int64_t first, int64_t rows, int64_t first_column,
                 int64_t last_column) {
  constexpr int64_t kWidth = kRnnSlots * kLanesOf<Real>;
  const int64_t units = plan.shape.units;
  // The GRU's has a part that does not come through R.
  const bool begins_at_zero = plan.cell != RnnCell::kGru;
  PointAtGradients(chunk, FlatRow(chunk, step) + first, rows, task.dz);
  for (int64_t q = first_column; q < last_column; ++q) {
    const int vectors = ColumnVectors<Real>(units, q);
    Real* const to = plan.grad_h + first * plan.grad_stride + q * kWidth;
    Sums<Real> sums{to, plan.grad_stride, to, plan.grad_stride};
    if (!plan.recurrent_dropout) {
      if (begins_at_zero) sums.begin = plan.zeros, sums.begin_stride = 0;
      MultiplyGradients(
          vectors, FactorOfGradients(plan, chunk, true, q, 0, count, task.dz),
          rows, sums);
      continue;
    }
    const int64_t columns = ColumnsAt(units, q * kWidth, kWidth);
    for (int64_t r = 0; r < rows && begins_at_zero; ++r)
      for (int64_t i = 0; i < columns; ++i) to[r * plan.grad_stride + i] = 0;
    // Each gate's part times the mask of the gate.
    const bool gate_by_gate = plan.recurrent_dropouts > 1;
    for (int v = 0; v < (gate_by_gate ? count : 1); ++v) {
      MultiplyGradients(vectors,
                        FactorOfGradients(plan, chunk, true, q, v,
                                          gate_by_gate ? 1 : count, task.dz),
                        rows, Sums<Real>{plan.zeros, 0, task.product, kWidth});
      const int gate = gate_by_gate ? RnnGateOf(plan.cell, true, v) : 0;
      for (int64_t r = 0; r < rows; ++r) {
        const Real* const mask =
            plan.recurrent_dropout +
            (gate * plan.shape.batch + plan.order[first + r]) * units +
            q * kWidth;
        for (int64_t i = 0; i < columns; ++i)
          to[r * plan.grad_stride + i] +=
              task.product[r * kWidth + i] * mask[i];
      }
    }
  }
}

// dz of a step in the panels [first_panel, last_panel), and the gradients of
// the states before it that do not come through R.
template <typename Real, typename Activations>
void PanelGradients(const RnnPlan<Real>& plan, const Activations& act,
                    const RnnChunk<Real>& chunk, const BackwardTask<Real>& task,
                    int64_t step, int64_t first, int64_t rows,
                    int64_t first_panel, int64_t last_panel) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = first + r;
    // The simple RNN needs h after the step, the GRU h before it.
    Real* const placed = task.placed_h + r * plan.shape.units;
    if (plan.cell == RnnCell::kSimple)
      CopyRow(StateOf(plan, row, step), plan.shape.units, placed);
    if (plan.cell == RnnCell::kGru)
      CopyRow(OldStateOf(plan, row, step), plan.shape.units, placed);
    task.h[r] = placed;
    task.grad_outputs[r] =
        GradOfOutput(plan, row, step, task.summed + r * plan.shape.units);
  }
  const StateGradients<Real> grads = {
      task.grad_outputs, plan.grad_h + first * plan.grad_stride,
      plan.grad_stride, plan.grad_c + first * plan.padded_units,
      plan.padded_units};
  const int64_t flat = FlatRow(chunk, step) + first;
  for (int64_t p = first_panel; p < last_panel; ++p) {
    const PanelUnits panel = UnitsOf(plan, p, rows);
    Real* const dz = GradientsOf(chunk, p, flat);
    if (plan.cell == RnnCell::kLstm)
      LstmGradients(act, panel, GatesOf(plan, step, p, first),
                    CellsOf(plan, step, p, first),
                    OldCells(plan, step, p, first), grads, dz);
    else if (plan.cell == RnnCell::kGru)
      GruGradients(act, panel, GatesOf(plan, step, p, first), task.h, grads,
                   plan.options.reset_after, dz);
    else
      SimpleGradients(act, panel, task.h, grads, dz);
  }
}

// The second half of a step of the GRU whose r multiplies h: dz of r.
template <typename Real, typename Activations>
void ResetGradients(const RnnPlan<Real>& plan, const Activations& act,
                    const RnnChunk<Real>& chunk, const BackwardTask<Real>& task,
                    int64_t step, int64_t first, int64_t rows) {
  constexpr int64_t kWidth = kRnnSlots * kLanesOf<Real>;
  const int64_t units = plan.shape.units;
  const int64_t flat = FlatRow(chunk, step) + first;
  PointAtGradients(chunk, flat, rows, task.dz);
  for (int64_t q = 0; q * kWidth < units; ++q) {
    // The last vector of R's belongs to the first slot of dz.
    Factor<Real> factor =
        FactorOfGradients(plan, chunk, true, q, 2, 1, task.dz);
    factor.row_offset = 0;
    MultiplyGradients(ColumnVectors<Real>(units, q), factor, rows,
                      Sums<Real>{plan.zeros, 0, task.grad_reset_h + q * kWidth,
                                 plan.grad_stride});
  }
  const int gate = plan.recurrent_dropouts > 1 ? 2 : 0;
  for (int64_t r = 0; r < rows && plan.recurrent_dropout; ++r)
    task.dropout[r] = plan.recurrent_dropout +
                      (gate * plan.shape.batch + plan.order[first + r]) * units;
  const StateGradients<Real> grads = {
      task.grad_outputs, plan.grad_h + first * plan.grad_stride,
      plan.grad_stride, plan.grad_c, plan.padded_units};
  for (int64_t p = 0; p < plan.panels; ++p)
    GruResetGradients(
        act, UnitsOf(plan, p, rows), GatesOf(plan, step, p, first), task.h,
        plan.recurrent_dropout ? task.dropout : nullptr, task.grad_reset_h,
        plan.grad_stride, grads, GradientsOf(chunk, p, flat));
}

template <typename Real>
inline int64_t ColumnPanels(int64_t columns) {
  constexpr int64_t kWidth = kRnnSlots * kLanesOf<Real>;
  return (columns + kWidth - 1) / kWidth;
}

template <typename Real, typename Activations>
void BackwardRowsWith(const RnnPlan<Real>& plan, const Activations& act,
                      const RnnChunk<Real>& chunk, int64_t first, int64_t last,
                      Real* memory) {
  Scratch scratch(memory);
  const BackwardTask<Real> task(plan, last - first, &scratch);
  const bool resets = ForwardTask<Real>::ResetsFirst(plan);
  const int vectors = resets ? 2 : RnnVectors(plan.cell);
  for (int64_t step = chunk.last_step - 1; step >= chunk.first_step; --step) {
    const int64_t end = plan.active[step] < last ? plan.active[step] : last;
    const int64_t rows = end - first;
    if (rows <= 0) continue;
    FillChunk(plan, chunk, step, first, rows);
    PanelGradients(plan, act, chunk, task, step, first, rows, 0, plan.panels);
    if (resets) ResetGradients(plan, act, chunk, task, step, first, rows);
    GradOfState(plan, chunk, task, step, vectors, first, rows, 0,
                ColumnPanels<Real>(plan.shape.units));
  }
}

template <typename Real>
void BackwardRows(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
                  int64_t first, int64_t last, Real* memory) {
  WithActivations(plan.options, [&](const auto& act) {
    BackwardRowsWith(plan, act, chunk, first, last, memory);
  });
}

template <typename Real>
void StepBack(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
              int64_t step, int64_t first, int64_t last, Real* memory) {
  Scratch scratch(memory);
  const BackwardTask<Real> task(plan, plan.rows, &scratch);
  if (step + 1 < chunk.last_step)
    GradOfState(plan, chunk, task, step + 1, RnnVectors(plan.cell), 0,
                plan.active[step + 1], first, last);
  if (step < chunk.first_step) return;
  const int64_t rows = plan.active[step];
  if (first == 0) FillChunk(plan, chunk, step, 0, rows);
  // Panels of units within these columns.
  const int64_t each =
      plan.cell == RnnCell::kSimple ? 1 : static_cast<int64_t>(kRnnSlots);
  const int64_t end = last * each < plan.panels ? last * each : plan.panels;
  WithActivations(plan.options, [&](const auto& act) {
    PanelGradients(plan, act, chunk, task, step, 0, rows, first * each, end);
  });
}

// dz K^T; with dropout each gate's part times the mask of the gate.
template <typename Real>
void InputGradients(const RnnPlan<Real>& plan, const RnnChunk<Real>& chunk,
                    int64_t first, int64_t last, Real* memory) {
  constexpr int64_t kWidth = kRnnSlots * kLanesOf<Real>;
  Scratch scratch(memory);
  const int64_t rows = last - first, features = plan.shape.features;
  const BackwardTask<Real> task(plan, rows, &scratch);
  PointAtGradients(chunk, first, rows, task.dz);
  const bool gate_by_gate = plan.input_dropouts > 1;
  const int count = RnnVectors(plan.cell);
  for (int64_t q = 0; q * kWidth < features; ++q)
    for (int v = 0; v < (gate_by_gate ? count : 1); ++v) {
      MultiplyGradients(ColumnVectors<Real>(features, q),
                        FactorOfGradients(plan, chunk, false, q, v,
                                          gate_by_gate ? 1 : count, task.dz),
                        rows, Sums<Real>{plan.zeros, 0, task.product, kWidth});
      const int gate = gate_by_gate ? RnnGateOf(plan.cell, false, v) : 0;
      const int64_t columns = ColumnsAt(features, q * kWidth, kWidth);
      for (int64_t r = 0; r < rows; ++r) {
        const Real* const from = task.product + r * kWidth;
        Real* const to = chunk.grad_x[first + r] + q * kWidth;
        if (!plan.input_dropout) {
          for (int64_t i = 0; i < columns; ++i) to[i] = from[i];
          continue;
        }
        const int64_t entry =
            gate * plan.shape.batch + plan.order[chunk.row[first + r]];
        const Real* const mask =
            plan.input_dropout + entry * features + q * kWidth;
        for (int64_t i = 0; i < columns; ++i)
          to[i] = from[i] * mask[i] + (v > 0 ? to[i] : Real{0});
      }
    }
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
