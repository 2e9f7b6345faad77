// The parts that recurrence.cc chooses from.

#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "kernels/recurrence/recurrence.h"

namespace hw3tf {

// The first overflow of a call, found in any order by any thread: the smallest
// batch entry, and its smallest step in the order in which they are taken.
class FirstOverflow {
 public:
  void Report(int64_t batch_entry, int64_t step);
  // Whether an overflow of this batch entry could still be the first.
  bool Matters(int64_t batch_entry) const {
    return batch_entry <= entry_.load(std::memory_order_relaxed);
  }
  RecurrenceResult Result(const RecurrenceArgs& args) const;

 private:
  std::mutex mutex_;  // of both
  std::atomic<int64_t> entry_{INT64_MAX};
  int64_t step_ = INT64_MAX;
};

// Below about 100 us of work on one core a second one is not worth its waking
// (up to 50 us, parallel.h).
int RecurrenceThreads(int requested, double microseconds);

// One feature, one unit, no activation, inputs one behind the other.
bool IsLine(const RecurrenceArgs& args);
RecurrenceResult RecurrenceOverLines(const RecurrenceArgs& args,
                                     int num_threads);

// Everything.
RecurrenceResult RecurrenceOverRows(const RecurrenceArgs& args,
                                    int num_threads);

// Weight i and state i, widened; the size of a state.
int64_t WeightAt(const RecurrenceArgs& args, const void* weights, int64_t i);
int64_t StateAt(const RecurrenceArgs& args, const void* states, int64_t i);
int64_t StateBytes(const RecurrenceArgs& args);

}  // namespace hw3tf
