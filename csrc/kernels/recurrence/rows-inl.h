// The general kernel: some rows, stretches of sequences, side by side, one step
// after the other.
//
// Time goes in blocks. Of each block the inputs are widened and multiplied with
// W at once, over all rows and steps; then every step adds the product of the
// states with U. A panel of U stays in the nearest cache while all rows meet
// it.
//
// A sum that bounds confine to the state's range is exact as it is. They come
// from the largest input of the row in this block and its largest state, so
// they cost two instructions per vector; where they fail, the step of this row
// is done again in wider sums, or by plan.exact.

#pragma once

#include "kernels/recurrence/kernel_table.h"
#include "kernels/recurrence/multiply-inl.h"
#include "kernels/recurrence/wide-inl.h"

namespace hw3tf {
namespace {

inline int64_t Aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Where the rows of one task keep their numbers.
template <typename State>
struct RowsMemory {
  // [row][step of the block][feature], and in two planes; features even there.
  State* inputs;
  int16_t *low_inputs, *high_inputs;
  State* sums;    // [row][step of the block][padded unit]
  State* states;  // [row][padded unit]
  int16_t *low_states, *high_states;
  double* largest_input;  // [row], of the block
  double* largest_state;  // [row]
  int64_t* wide;          // WideScratch
  int64_t bytes;

  RowsMemory(const RowsPlan& plan, int64_t rows, char* memory) {
    const int64_t features = plan.args->shape.features;
    const int64_t steps = rows * plan.time_block;
    const int64_t pairs = plan.narrow ? 1 : 0;
    char* const begin = memory;
    Carve(&memory, steps * features, &inputs);
    Carve(&memory, pairs * steps * Even(features), &low_inputs);
    Carve(&memory, pairs * steps * Even(features), &high_inputs);
    Carve(&memory, steps * plan.padded_units, &sums);
    Carve(&memory, rows * plan.padded_units, &states);
    Carve(&memory, pairs * rows * plan.padded_units, &low_states);
    Carve(&memory, pairs * rows * plan.padded_units, &high_states);
    Carve(&memory, rows, &largest_input);
    Carve(&memory, rows, &largest_state);
    Carve(&memory, WideScratch(plan), &wide);
    bytes = memory - begin;
  }

 private:
  template <typename T>
  static void Carve(char** memory, int64_t count, T** array) {
    *array = reinterpret_cast<T*>(*memory);
    *memory += Aligned(count * static_cast<int64_t>(sizeof(T)));
  }
};

template <typename State>
class Rows {
 public:
  Rows(const RowsPlan& plan, RecurrenceRow* rows, int64_t count, void* scratch)
      : plan_(plan),
        args_(*plan.args),
        rows_(rows),
        count_(count),
        memory_(plan, count, static_cast<char*>(scratch)) {}

  void Run() {
    for (int64_t r = 0; r < count_; ++r) Begin(r);
    for (int64_t first = 0; first < rows_[0].steps; first += plan_.time_block) {
      while (rows_[count_ - 1].steps <= first) --count_;
      const int64_t left = rows_[0].steps - first;
      steps_ = left < plan_.time_block ? left : plan_.time_block;
      Project(first);
      for (int64_t s = 0; s < steps_; ++s) {
        int64_t active = count_;
        while (active > 0 && rows_[active - 1].steps <= first + s) --active;
        AddRecurrent(s, active);
        for (int64_t r = 0; r < active; ++r) Finish(r, first, s);
      }
      for (int64_t r = 0; r < count_; ++r)
        if (rows_[r].steps <= first + steps_) End(r);
    }
    if (rows_[0].steps == 0)
      for (int64_t r = 0; r < count_; ++r) End(r);
  }

 private:
  State* StateOf(int64_t r) const {
    return memory_.states + r * plan_.padded_units;
  }

  void Begin(int64_t r) {
    const int64_t units = args_.shape.units;
    const auto* initial = static_cast<const State*>(rows_[r].initial);
    Number<State> changes = 0;
    for (int64_t j = 0; j < plan_.padded_units; ++j) {
      const State x = initial && j < units ? initial[j] : State{0};
      StateOf(r)[j] = x;
      changes |= SignChanges(static_cast<Number<State>>(x));
    }
    memory_.largest_state[r] = LargestMagnitude(changes);
    Split(r);
  }

  void End(int64_t r) {
    if (rows_[r].last)
      std::memcpy(rows_[r].last, StateOf(r),
                  static_cast<size_t>(args_.shape.units) * sizeof(State));
  }

  // The states of the row in two planes, if they are multiplied so.
  void Split(int64_t r) {
    if (!plan_.narrow || plan_.diagonal) return;
    const int64_t at = r * plan_.padded_units;
    SplitPlanes(reinterpret_cast<const int32_t*>(StateOf(r)),
                plan_.padded_units, memory_.low_states + at,
                memory_.high_states + at);
  }

  int64_t TimeOf(int64_t r, int64_t step) const {
    const int64_t at = rows_[r].first_step + step;
    return args_.options.reverse ? args_.shape.timesteps - 1 - at : at;
  }

  // Sums of the block begin with the bias and the products with W.
  void Project(int64_t first) {
    bool any_high = false;
    for (int64_t r = 0; r < count_; ++r) {
      const int64_t left = rows_[r].steps - first;
      any_high |= WidenRow(r, first, left < steps_ ? left : steps_);
    }
    const auto* bias = static_cast<const State*>(plan_.bias);
    const auto bytes = static_cast<size_t>(plan_.padded_units) * sizeof(State);
    for (int64_t r = 0; r < count_; ++r)
      for (int64_t s = 0; s < steps_; ++s)
        std::memcpy(SumsOf(r, s), bias, bytes);
    const int64_t features = args_.shape.features;
    // The steps of all rows lie one behind the other, but for a shorter block.
    for (int64_t r = 0; r < count_; ++r) {
      const bool adjacent = steps_ == plan_.time_block;
      const int64_t rows = adjacent ? steps_ * count_ : steps_;
      MultiplyRows(memory_.inputs + r * plan_.time_block * features, features,
                   memory_.low_inputs, memory_.high_inputs,
                   r * plan_.time_block, any_high, features, SumsOf(r, 0),
                   plan_.padded_units, rows, plan_.kernel);
      if (adjacent) break;
    }
  }

  // c += a * packed, in planes or not. Planes begin at row `first` and have an
  // even number of elements in each.
  void MultiplyRows(const State* a, int64_t a_stride, const int16_t* low,
                    const int16_t* high, int64_t first, bool any_high,
                    int64_t depth, State* c, int64_t c_stride, int64_t rows,
                    const void* packed) {
    if constexpr (sizeof(State) == 4) {
      if (plan_.narrow) {
        const int64_t stride = Even(a_stride);
        const auto* weights = static_cast<const int16_t*>(packed);
        Multiply<Pairs<0>>({low + first * stride, stride, depth, c, c_stride},
                           rows, plan_.padded_units, weights);
        if (any_high)
          Multiply<Pairs<16>>(
              {high + first * stride, stride, depth, c, c_stride}, rows,
              plan_.padded_units, weights);
        return;
      }
    }
    Multiply<Numbers<State>>({a, a_stride, depth, c, c_stride}, rows,
                             plan_.padded_units,
                             static_cast<const State*>(packed));
  }

  State* SumsOf(int64_t r, int64_t s) const {
    return memory_.sums + (r * plan_.time_block + s) * plan_.padded_units;
  }

  State* InputsOf(int64_t r, int64_t s) const {
    return memory_.inputs + (r * plan_.time_block + s) * args_.shape.features;
  }

  // Returns whether an input does not fit int16.
  bool WidenRow(int64_t r, int64_t first, int64_t steps) {
    const int64_t features = args_.shape.features;
    Number<State> changes = 0;
    WithInputs<State>(args_.input_dtype, args_.inputs, [&](const auto* inputs) {
      const auto* row =
          inputs + rows_[r].batch_entry * args_.input_batch_stride;
      for (int64_t s = 0; s < steps; ++s) {
        const auto* from = row + TimeOf(r, first + s) * args_.input_time_stride;
        State* to = InputsOf(r, s);
        for (int64_t i = 0; i < features; ++i) {
          to[i] = static_cast<State>(Widened(from[i]));
          changes |= SignChanges(static_cast<Number<State>>(to[i]));
        }
      }
    });
    memory_.largest_input[r] = LargestMagnitude(changes);
    return plan_.narrow && SplitInputs(r, steps);
  }

  // An odd feature more is not written: its weights are zero.
  bool SplitInputs(int64_t r, int64_t steps) {
    const int64_t features = args_.shape.features, even = Even(features);
    bool any_high = false;
    for (int64_t s = 0; s < steps; ++s) {
      const int64_t at = (r * plan_.time_block + s) * even;
      any_high |= SplitPlanes(reinterpret_cast<const int32_t*>(InputsOf(r, s)),
                              features, memory_.low_inputs + at,
                              memory_.high_inputs + at);
    }
    return any_high;
  }

  void AddRecurrent(int64_t s, int64_t active) {
    if (plan_.diagonal) return AddDiagonal(s, active);
    bool any_high = false;
    for (int64_t r = 0; r < active; ++r)
      any_high |= memory_.largest_state[r] > 0x1p15;
    MultiplyRows(memory_.states, plan_.padded_units, memory_.low_states,
                 memory_.high_states, 0, any_high, args_.shape.units,
                 SumsOf(0, s), plan_.time_block * plan_.padded_units, active,
                 plan_.recurrent_kernel);
  }

  void AddDiagonal(int64_t s, int64_t active) {
    const auto* diagonal = static_cast<const State*>(plan_.recurrent_kernel);
    for (int64_t r = 0; r < active; ++r) {
      State* sums = SumsOf(r, s);
      for (int64_t j = 0; j < plan_.padded_units; j += kRingLanes<State>)
        StoreRing(sums + j, LoadRing(sums + j) + LoadRing(StateOf(r) + j) *
                                                     LoadRing(diagonal + j));
    }
  }

  // The sums of a step become the state of the row.
  void Finish(int64_t r, int64_t first, int64_t s) {
    const int64_t units = args_.shape.units;
    const int64_t step = rows_[r].first_step + first + s;
    const int64_t t = TimeOf(r, first + s);
    const int64_t b = rows_[r].batch_entry;
    State* const state = StateOf(r);
    if (!args_.mask || args_.mask[b * args_.shape.timesteps + t]) {
      State* const sums = SumsOf(r, s);
      if (plan_.checked && !ConfinedTo(StateLimit(), r)) {
        const bool overflows = Again(r, s);
        if (overflows && rows_[r].overflow < 0 &&
            args_.options.overflow == Overflow::kRaise)
          rows_[r].overflow = step;
      } else {
        Round(sums);
        Activate(sums);
      }
      Number<State> changes = Copy(sums, state);
      memory_.largest_state[r] = LargestMagnitude(changes);
      Split(r);
    }
    if (plan_.sequences) {
      auto* output = static_cast<State*>(args_.output) +
                     (b * args_.shape.timesteps + step) * units;
      std::memcpy(output, state, static_cast<size_t>(units) * sizeof(State));
    }
  }

  // The step of one row in as many bits as it takes. Returns whether it
  // overflows.
  bool Again(int64_t r, int64_t s) const {
    if constexpr (sizeof(State) == 4) {
      if (plan_.wide_kernel && ConfinedTo(0x1p62, r)) {
        const bool overflows = WideStep(plan_, InputsOf(r, s), StateOf(r),
                                        memory_.wide, SumsOf(r, s));
        Activate(SumsOf(r, s));
        return overflows;
      }
    }
    return plan_.exact(args_, InputsOf(r, s), StateOf(r), SumsOf(r, s));
  }

  static constexpr double StateLimit() {
    return sizeof(State) == 8 ? 0x1p63 : 0x1p31;
  }

  bool ConfinedTo(double limit, int64_t r) const {
    const double most = plan_.kernel_norm * memory_.largest_input[r] +
                        plan_.recurrent_norm * memory_.largest_state[r] +
                        plan_.bias_norm;
    // The rounding of these few operations, and of the sum's own, many times
    // over; a half is added before a shift.
    const int bits = args_.options.fractional_bits;
    const double half =
        bits > 0 ? static_cast<double>(int64_t{1} << (bits - 1)) : 0.0;
    return (most + half) * (1 + 1e-9) < limit;
  }

  void Round(State* sums) const {
    const int bits = args_.options.fractional_bits;
    if (bits == 0) return;
    const auto half = static_cast<Number<State>>(int64_t{1} << (bits - 1));
    for (int64_t j = 0; j < plan_.padded_units; j += kRingLanes<State>)
      StoreRing(
          sums + j,
          reinterpret_cast<RingVec<State>>(
              reinterpret_cast<SignedVec<State>>(LoadRing(sums + j) + half) >>
              bits));
  }

  template <typename Function>
  void Map(State* sums, const Function& function) const {
    for (int64_t j = 0; j < plan_.padded_units; j += kRingLanes<State>)
      StoreRing(sums + j,
                reinterpret_cast<RingVec<State>>(function(
                    reinterpret_cast<SignedVec<State>>(LoadRing(sums + j)))));
  }

  void Activate(State* sums) const {
    using Signed = SignedVec<State>;
    switch (args_.options.activation) {
      case Activation::kNone:
        return;
      case Activation::kRelu:
        return Map(sums, [](Signed x) { return x > 0 ? x : Signed{}; });
      case Activation::kSign:
        // True is -1 in a vector.
        return Map(sums, [](Signed x) { return (x < 0) - (x > 0); });
      case Activation::kClip: {
        const Signed low =
            Signed{} + static_cast<State>(args_.options.clip_low);
        const Signed high =
            Signed{} + static_cast<State>(args_.options.clip_high);
        return Map(sums, [&](Signed x) {
          const Signed raised = x < low ? low : x;
          return raised > high ? high : raised;
        });
      }
    }
  }

  // Returns the sign changes of what it copies.
  Number<State> Copy(const State* from, State* to) const {
    RingVec<State> changes = {};
    for (int64_t j = 0; j < plan_.padded_units; j += kRingLanes<State>) {
      const RingVec<State> x = LoadRing(from + j);
      changes |= SignChanges(x);
      StoreRing(to + j, x);
    }
    return JoinLanes<State>(changes);
  }

  const RowsPlan& plan_;
  const RecurrenceArgs& args_;
  RecurrenceRow* rows_;
  int64_t count_;
  int64_t steps_ = 0;
  RowsMemory<State> memory_;
};

int64_t PackedBytes(const RowsPlan& plan, int64_t depth) {
  const int64_t bytes = plan.args->state_dtype == IntDType::kInt64 ? 8 : 4;
  if (plan.narrow) return Even(depth) * plan.padded_units * 2;
  return depth * plan.padded_units * bytes;
}

void Pack(const RowsPlan& plan, const void* weights, int64_t depth,
          void* packed) {
  const int64_t units = plan.args->shape.units, padded = plan.padded_units;
  if (plan.narrow && plan.args->weight_dtype == IntDType::kInt8)
    PackPairs(static_cast<const int8_t*>(weights), depth, units, padded,
              static_cast<int16_t*>(packed));
  else if (plan.narrow)
    PackPairs(static_cast<const int32_t*>(weights), depth, units, padded,
              static_cast<int16_t*>(packed));
  else if (plan.args->state_dtype == IntDType::kInt64)
    PackPanels(static_cast<const int64_t*>(weights), depth, units, padded,
               static_cast<int64_t*>(packed));
  else
    PackPanels(static_cast<const int32_t*>(weights), depth, units, padded,
               static_cast<int32_t*>(packed));
}

int64_t WidePackedBytes(const RowsPlan& plan, int64_t depth) {
  return depth * WidePaddedUnits(plan) * static_cast<int64_t>(sizeof(int64_t));
}

void WidePack(const RowsPlan& plan, const void* weights, int64_t depth,
              void* packed) {
  const int64_t units = plan.args->shape.units;
  const int64_t padded = WidePaddedUnits(plan);
  auto* to = static_cast<int64_t*>(packed);
  if (plan.args->weight_dtype == IntDType::kInt8)
    PackPanels(static_cast<const int8_t*>(weights), depth, units, padded, to);
  else
    PackPanels(static_cast<const int32_t*>(weights), depth, units, padded, to);
}

int64_t RowsScratch(const RowsPlan& plan, int64_t rows) {
  alignas(64) static char none[64];
  if (plan.args->state_dtype == IntDType::kInt64)
    return RowsMemory<int64_t>(plan, rows, none).bytes;
  return RowsMemory<int32_t>(plan, rows, none).bytes;
}

void RunRows(const RowsPlan& plan, RecurrenceRow* rows, int64_t count,
             void* scratch) {
  if (plan.args->state_dtype == IntDType::kInt64)
    Rows<int64_t>(plan, rows, count, scratch).Run();
  else
    Rows<int32_t>(plan, rows, count, scratch).Run();
}

}  // namespace
}  // namespace hw3tf
