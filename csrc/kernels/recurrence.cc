#include "kernels/recurrence.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstring>
#include <new>
#include <vector>

#include "kernels/parallel.h"
#include "kernels/recurrence_exact.h"

namespace hw3tf {
namespace {

// Below about 100 us of work on one core a second one is not worth its waking
// (up to 50 us, parallel.h).
constexpr double kSerialProducts = 1e5;

// Where the first overflow of each batch entry is reported; the smallest entry
// stays, whichever thread comes first.
class FirstOverflow {
 public:
  void Report(int64_t batch_entry) {
    int64_t known = entry_.load();
    while (batch_entry < known &&
           !entry_.compare_exchange_weak(known, batch_entry)) {
    }
  }
  int64_t entry() const { return entry_.load(); }

 private:
  std::atomic<int64_t> entry_{INT64_MAX};
};

template <typename State>
int64_t PlainRow(const RecurrenceArgs& args, int64_t b) {
  const auto [batch, timesteps, features, units] = args.shape;
  const RecurrenceOptions& options = args.options;
  std::vector<State> x(static_cast<size_t>(features));
  std::vector<State> state(static_cast<size_t>(units)), next(state);
  const size_t bytes = state.size() * sizeof(State);
  if (args.initial_state)
    std::memcpy(state.data(),
                static_cast<const State*>(args.initial_state) + b * units,
                bytes);
  auto* output = static_cast<State*>(args.output);
  output += options.return_sequences ? b * timesteps * units : b * units;
  for (int64_t step = 0; step < timesteps; ++step) {
    const int64_t t = options.reverse ? timesteps - 1 - step : step;
    if (!args.mask || args.mask[b * timesteps + t]) {
      const int64_t first =
          b * args.input_batch_stride + t * args.input_time_stride;
      for (int64_t i = 0; i < features; ++i)
        x[static_cast<size_t>(i)] = static_cast<State>(
            WidenedInput(args.input_dtype, args.inputs, first + i));
      if (ExactStep(args, x.data(), state.data(), next.data()) &&
          options.overflow == Overflow::kRaise)
        return t;
      state.swap(next);
    }
    if (options.return_sequences)
      std::memcpy(output + step * units, state.data(), bytes);
  }
  if (!options.return_sequences) std::memcpy(output, state.data(), bytes);
  return -1;
}

RecurrenceResult Plain(const RecurrenceArgs& args, int num_threads) {
  const RecurrenceShape& shape = args.shape;
  const double products = static_cast<double>(shape.batch * shape.timesteps) *
                          static_cast<double>(shape.units) *
                          static_cast<double>(shape.features + shape.units);
  const int threads =
      products < kSerialProducts ? 1 : ResolveNumThreads(num_threads);
  std::vector<int64_t> at(static_cast<size_t>(shape.batch), -1);
  FirstOverflow first;
  std::atomic<bool> out_of_memory{false};
  ParallelFor(shape.batch, threads, [&](int64_t b, int) {
    if (b > first.entry() || out_of_memory) return;
    try {
      const int64_t t = args.state_dtype == IntDType::kInt64
                            ? PlainRow<int64_t>(args, b)
                            : PlainRow<int32_t>(args, b);
      at[static_cast<size_t>(b)] = t;
      if (t >= 0) first.Report(b);
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
  });
  if (out_of_memory) return {RecurrenceStatus::kOutOfMemory, 0, 0};
  if (first.entry() == INT64_MAX) return {RecurrenceStatus::kDone, 0, 0};
  return {RecurrenceStatus::kOverflow, first.entry(),
          at[static_cast<size_t>(first.entry())]};
}

void AssertArgs(const RecurrenceArgs& args) {
  const bool wide = args.state_dtype == IntDType::kInt64;
  assert(wide || args.state_dtype == IntDType::kInt32);
  assert(args.weight_dtype == args.state_dtype ||
         (!wide && args.weight_dtype == IntDType::kInt8));
  assert(wide || args.input_dtype != IntDType::kInt64);
  assert(args.shape.batch >= 0 && args.shape.timesteps >= 0);
  assert(args.shape.features >= 1 && args.shape.units >= 1);
  (void)args, (void)wide;
}

}  // namespace

RecurrenceResult IntegerRecurrence(const RecurrenceArgs& args,
                                   int num_threads) {
  AssertArgs(args);
  try {
    return Plain(args, num_threads);
  } catch (const std::bad_alloc&) {
    return {RecurrenceStatus::kOutOfMemory, 0, 0};
  }
}

}  // namespace hw3tf
