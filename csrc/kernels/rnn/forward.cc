#include "kernels/rnn/call.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace hw3tf {
namespace {

// Large pages for memory that is written for the first time: of 48 MiB the page
// faults cost 22 ms without, 3.5 ms with them, beside 40 ms of a forward pass.
void AdviseLargePages([[maybe_unused]] void* data,
                      [[maybe_unused]] int64_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kLargePage = 2 * 1024 * 1024;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + kLargePage - 1) / kLargePage * kLargePage;
  const uintptr_t last =
      (begin + static_cast<uintptr_t>(bytes)) / kLargePage * kLargePage;
  if (first < last)
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

template <typename Real>
class ForwardPass {
 public:
  ForwardPass(const RnnForwardArgs& args, int num_threads)
      : args_(args),
        call_(args.cell, args.dtype, args.shape, args.options, args.operands,
              num_threads),
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
    if (!plan_.h && plan_.options.return_sequences) {
      plan_.keeps_h = true;
      if (IsHalf(args_.dtype)) {
        h_.Resize(shape.batch * shape.timesteps * shape.units);
        plan_.h = h_.get();
      } else {
        plan_.h = static_cast<Real*>(args_.outputs);
      }
    }
    if (!plan_.h) {
      h_.Resize(2 * plan_.rows * shape.units);
      plan_.h = h_.get();
    }
    if (args_.cell == RnnCell::kLstm && !plan_.c) {
      c_.Resize(plan_.rows * plan_.padded_units);
      plan_.c = c_.get();
    }
  }

  // A task is some rows through all their steps: no thread waits for another.
  // Rows with masks differ in length, and are cut finer to balance.
  void RunSteps() {
    const int64_t most =
        call_.rows.masked() ? 4 * call_.threads : call_.threads;
    const int64_t tasks = std::min(plan_.rows, std::max<int64_t>(1, most));
    const int64_t height = (plan_.rows + tasks - 1) / tasks;
    const int64_t bytes = call_.kernels.forward_scratch(plan_, height);
    const int64_t reals = bytes / static_cast<int64_t>(sizeof(Real));
    Memory<Real> scratch(reals * std::min<int64_t>(call_.threads, tasks));
    ParallelFor(tasks, call_.threads, [&](int64_t task, int worker) {
      const int64_t first = task * plan_.rows / tasks;
      const int64_t last = (task + 1) * plan_.rows / tasks;
      call_.kernels.forward(plan_, first, last, scratch.get() + worker * reals);
    });
  }

  // h after the last step of a batch entry; nullptr: it has none.
  const Real* LastState(int64_t entry) const {
    const int64_t row = call_.rows.RowOf(entry);
    if (row < 0) return nullptr;
    const int64_t step = plan_.steps[row] - 1;
    return StateAt(row, entry, step);
  }

  const Real* StateAt(int64_t row, int64_t entry, int64_t step) const {
    const int64_t units = plan_.shape.units;
    if (!plan_.keeps_h) return plan_.h + (step % 2 * plan_.rows + row) * units;
    const int64_t position =
        plan_.positions ? plan_.positions[row * plan_.shape.timesteps + step]
                        : step;
    return plan_.h + (entry * plan_.shape.timesteps + position) * units;
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
  Memory<Real> h_, c_;
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
