// Which part computes a call, and what the parts share.

#include "kernels/recurrence/recurrence.h"

#include <cassert>
#include <cstring>
#include <exception>

#include "kernels/recurrence/parts.h"
#include "kernels/runtime/parallel.h"
#include "kernels/runtime/test_hooks.h"

namespace hw3tf {
namespace {

constexpr double kSerialMicroseconds = 100;

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

// Sizes beside an axis of size 0 are not bounded by any memory: nothing here
// depends on them but through what the output holds.
void WithoutSteps(const RecurrenceArgs& args) {
  if (args.shape.batch == 0 || args.options.return_sequences) return;
  const auto bytes = static_cast<size_t>(args.shape.batch * args.shape.units *
                                         StateBytes(args));
  if (args.initial_state)
    std::memcpy(args.output, args.initial_state, bytes);
  else
    std::memset(args.output, 0, bytes);
}

}  // namespace

void FirstOverflow::Report(int64_t batch_entry, int64_t step) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t known = entry_.load(std::memory_order_relaxed);
  if (batch_entry > known || (batch_entry == known && step >= step_)) return;
  step_ = step;
  entry_.store(batch_entry, std::memory_order_relaxed);
}

RecurrenceResult FirstOverflow::Result(const RecurrenceArgs& args) const {
  const int64_t entry = entry_.load();
  if (entry == INT64_MAX) return {RecurrenceStatus::kDone, 0, 0};
  const int64_t t =
      args.options.reverse ? args.shape.timesteps - 1 - step_ : step_;
  return {RecurrenceStatus::kOverflow, entry, t};
}

int RecurrenceThreads(int requested, double microseconds) {
  return microseconds < kSerialMicroseconds && !test_hooks.always_threads
             ? 1
             : ResolveNumThreads(requested);
}

int64_t WeightAt(const RecurrenceArgs& args, const void* weights, int64_t i) {
  if (args.weight_dtype == IntDType::kInt8)
    return static_cast<const int8_t*>(weights)[i];
  if (args.weight_dtype == IntDType::kInt32)
    return static_cast<const int32_t*>(weights)[i];
  return static_cast<const int64_t*>(weights)[i];
}

int64_t StateAt(const RecurrenceArgs& args, const void* states, int64_t i) {
  if (args.state_dtype == IntDType::kInt32)
    return static_cast<const int32_t*>(states)[i];
  return static_cast<const int64_t*>(states)[i];
}

int64_t StateBytes(const RecurrenceArgs& args) {
  return args.state_dtype == IntDType::kInt64 ? 8 : 4;
}

RecurrenceResult IntegerRecurrence(const RecurrenceArgs& args,
                                   int num_threads) {
  AssertArgs(args);
  if (args.shape.batch == 0 || args.shape.timesteps == 0) {
    WithoutSteps(args);
    return {RecurrenceStatus::kDone, 0, 0};
  }
  const FloatingPointScope scope;  // bounds are computed in double
  try {
    return IsLine(args) ? RecurrenceOverLines(args, num_threads)
                        : RecurrenceOverRows(args, num_threads);
  } catch (const std::exception&) {
    // Callers take no exceptions. All there are (std::bad_alloc,
    // std::length_error) say that more is wanted than there can be.
    return {RecurrenceStatus::kOutOfMemory, 0, 0};
  }
}

}  // namespace hw3tf
