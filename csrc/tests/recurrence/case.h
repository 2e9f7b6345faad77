// Random cases of the recurrence: the inputs, the call in guarded memory, and
// the comparison with the formula.

#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/recurrence/recurrence.h"
#include "tests/check.h"
#include "tests/recurrence/formula.h"

namespace hw3tf {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  int64_t Below(int64_t count) {
    return static_cast<int64_t>(engine_() % static_cast<uint64_t>(count));
  }
  bool OneIn(int64_t count) { return Below(count) == 0; }
  template <size_t kCount>
  int64_t Of(const int64_t (&values)[kCount]) {
    return values[Below(static_cast<int64_t>(kCount))];
  }
  // Within the type and -size .. size, often at an edge.
  int64_t Number(IntDType dtype, int64_t size);
  std::vector<int64_t> Numbers(int64_t count, IntDType dtype, int64_t size);

 private:
  std::mt19937_64 engine_;
};

RecurrenceCase MakeCase(Random* random, const RecurrenceShape& shape);

// How the inputs lie in memory.
enum class InputLayout { kContiguous, kTimeBackwards, kGaps, kCount };

// The same call in guarded memory.
class RecurrenceCall {
 public:
  RecurrenceCall(const RecurrenceCase& c, Guard guard, InputLayout layout);

  // Equal to the formula, or failing at the same place.
  void Check(int threads);

 private:
  using Bytes = GuardedArray<unsigned char>;

  const void* Array(const std::vector<int64_t>& values, IntDType dtype);
  void PutInputs(InputLayout layout);
  void Compare(const RecurrenceResult& got, int threads) const;

  const RecurrenceCase& c_;
  Guard guard_;
  std::vector<std::unique_ptr<Bytes>> arrays_;
  Bytes output_;
  RecurrenceArgs args_;
};

}  // namespace hw3tf
