#include "kernels/rnn/call.h"
#include "kernels/runtime/test_hooks.h"

namespace hw3tf {
namespace {

// Rows of x K that are computed ahead: some tiles.
constexpr int64_t kRowsAhead = 96;

template <typename Real>
class ForwardPass {
 public:
  ForwardPass(const RnnForwardArgs& args, int num_threads)
      : args_(args),
        call_(args.cell, args.dtype, args.shape, args.options, args.operands,
              MultipliesPairs(args.dtype, args.operands), num_threads),
        plan_(call_.plan) {}

  void Run() {
    PlaceStates();
    if (plan_.rows > 0) {
      call_.PackForward();
      RunSteps();
    }
    ParallelFor(plan_.shape.batch, call_.threads, [&](int64_t entry, int) {
      FinishOutputs(entry);
      FinishStates(entry);
    });
  }

 private:
  void PlaceStates() {
    const RnnShape& shape = plan_.shape;
    if (plan_.options.keep) {
      const RnnKept parts =
          RnnKeptParts(args_.cell, args_.dtype, shape, args_.options);
      AdviseLargePages(args_.kept, (parts.gates + parts.c + parts.h) *
                                       static_cast<int64_t>(sizeof(Real)));
      call_.PlaceKept(args_.kept);
    }
    h_now_.Resize(2 * plan_.rows * shape.units);
    plan_.h_now = h_now_.get();
    if (!plan_.h && plan_.options.return_sequences) {
      if (IsHalf(args_.dtype)) {
        h_.Resize(shape.batch * shape.timesteps * shape.units);
        plan_.h = h_.get();
      } else {
        plan_.h = static_cast<Real*>(args_.outputs);
      }
    }
    if (args_.cell == RnnCell::kLstm && !plan_.c) {
      c_.Resize(plan_.rows * plan_.padded_units);
      plan_.c = c_.get();
    }
  }

  void RunSteps() {
    const bool resets =
        args_.cell == RnnCell::kGru && !args_.options.reset_after;
    if (FewRows(plan_.rows, call_.threads, call_.weight_bytes()) && !resets)
      RunTogether();
    else
      RunRows();
  }

  // A task is some rows through all their steps: no thread waits for another.
  // Rows with masks differ in length, and are cut finer to balance.
  void RunRows() {
    const int64_t most =
        call_.rows.masked() ? 4 * call_.threads : call_.threads;
    const int64_t tasks = std::min(plan_.rows, std::max<int64_t>(1, most));
    const int64_t height = (plan_.rows + tasks - 1) / tasks;
    const int64_t reals = call_.kernels.forward_scratch(plan_, height) /
                          static_cast<int64_t>(sizeof(Real));
    Memory<Real> scratch(reals * std::min<int64_t>(call_.threads, tasks));
    ParallelFor(tasks, call_.threads, kRnnRowsPath,
                [&](int64_t task, int worker) {
                  const int64_t first = task * plan_.rows / tasks;
                  const int64_t last = (task + 1) * plan_.rows / tasks;
                  call_.kernels.forward(plan_, first, last,
                                        scratch.get() + worker * reals);
                });
  }

  // Few rows: every thread has some of the units, and waits for the others at
  // each step. Each reads its own part of R, which stays in its cache.
  void RunTogether() {
    RnnAhead<Real> ahead{};
    const int64_t longest = plan_.steps[0];
    ahead.most_steps = std::min(
        longest,
        std::max<int64_t>(
            1, Hooked(test_hooks.rnn_rows_ahead, kRowsAhead) / plan_.rows));
    Memory<Real> sums(plan_.panels * ahead.most_steps * plan_.rows * kRnnSlots *
                      call_.kernels.lanes);
    ahead.sums = sums.get();
    const int64_t reals = call_.kernels.ahead_scratch(plan_, ahead) /
                          static_cast<int64_t>(sizeof(Real));
    const auto parts = static_cast<int>(
        std::min<int64_t>({call_.threads, plan_.panels, int64_t{kMostParts}}));
    Memory<Real> scratch(reals * parts);
    // One phase more than steps in each stretch that is computed ahead.
    const int64_t stretch = ahead.most_steps + 1;
    const int64_t phases =
        longest + (longest + ahead.most_steps - 1) / ahead.most_steps;
    ParallelPhases(
        phases, parts, kRnnUnitsPath, [&](int64_t phase, int part, int worker) {
          const int64_t first = part * plan_.panels / parts;
          const int64_t last = (part + 1) * plan_.panels / parts;
          const int64_t begin = phase / stretch * ahead.most_steps;
          Real* const memory = scratch.get() + worker * reals;
          if (phase % stretch == 0)
            call_.kernels.inputs_ahead(plan_, ahead, begin, first, last,
                                       memory);
          else
            call_.kernels.step_ahead(plan_, ahead, begin + phase % stretch - 1,
                                     first, last, memory);
        });
  }

  // h after the last step of a batch entry; nullptr: it has none.
  const Real* LastState(int64_t entry) const {
    const int64_t row = call_.rows.RowOf(entry);
    if (row < 0) return nullptr;
    const int64_t parity = (plan_.steps[row] - 1) % 2;
    return plan_.h_now + (parity * plan_.rows + row) * plan_.shape.units;
  }

  // In the array of all steps.
  const Real* StateAt(int64_t row, int64_t entry, int64_t step) const {
    const int64_t position =
        plan_.positions ? plan_.positions[row * plan_.shape.timesteps + step]
                        : step;
    return plan_.h +
           (entry * plan_.shape.timesteps + position) * plan_.shape.units;
  }

  void StoreRow(const Real* from, void* to, int64_t row) const {
    const int64_t units = plan_.shape.units;
    StoreAs(from ? from : plan_.zeros, args_.dtype, units, to, row * units);
  }

  void FinishOutputs(int64_t entry) const {
    const int64_t timesteps = plan_.shape.timesteps;
    const bool zero = plan_.options.zero_output_for_mask;
    if (!plan_.options.return_sequences) {
      const bool is_step = call_.rows.IsStep(entry, timesteps - 1);
      return StoreRow(zero && !is_step ? nullptr : LastState(entry),
                      args_.outputs, entry);
    }
    const int64_t row = call_.rows.RowOf(entry);
    const Real* output = nullptr;
    int64_t step = 0;
    for (int64_t position = 0; position < timesteps; ++position) {
      if (call_.rows.IsStep(entry, position))
        output = StateAt(row, entry, step++);
      else if (zero)
        output = nullptr;
      StoreRow(output, args_.outputs, entry * timesteps + position);
    }
  }

  void FinishStates(int64_t entry) const {
    const int64_t units = plan_.shape.units, lanes = call_.kernels.lanes;
    const Real* last = LastState(entry);
    if (!last && plan_.initial_h) last = plan_.initial_h + entry * units;
    StoreRow(last, args_.last_h, entry);
    if (args_.cell != RnnCell::kLstm) return;
    const int64_t row = call_.rows.RowOf(entry);
    if (row < 0)
      return StoreRow(
          call_.initial_c ? call_.initial_c + entry * units : nullptr,
          args_.last_c, entry);
    const Real* c = plan_.c + row * lanes;
    if (plan_.keeps_c)
      c += (plan_.steps[row] - 1) * plan_.panels * plan_.rows * lanes;
    for (int64_t p = 0; p < plan_.panels; ++p)
      StoreAs(c + p * plan_.rows * lanes, args_.dtype,
              std::min(lanes, units - p * lanes), args_.last_c,
              entry * units + p * lanes);
  }

  const RnnForwardArgs& args_;
  RnnCall<Real> call_;
  RnnPlan<Real>& plan_;
  Memory<Real> h_now_, h_, c_;
};

}  // namespace

bool RnnForward(const RnnForwardArgs& args, int num_threads) {
  const FloatingPointScope scope;
  try {
    if (args.dtype == RnnDType::kFloat64)
      ForwardPass<double>(args, num_threads).Run();
    else
      ForwardPass<float>(args, num_threads).Run();
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace hw3tf
