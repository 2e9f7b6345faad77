// Random cases of the RNN kernels: the inputs, the call in guarded memory, and
// the comparison with the formula.

#pragma once

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/check.h"
#include "tests/rnn/formula.h"

namespace hw3tf {

class RnnRandom {
 public:
  explicit RnnRandom(uint64_t seed) : engine_(seed) {}

  int64_t Below(int64_t count) {
    return static_cast<int64_t>(engine_() % static_cast<uint64_t>(count));
  }
  bool OneIn(int64_t count) { return Below(count) == 0; }
  template <size_t kCount>
  int64_t Of(const int64_t (&values)[kCount]) {
    return values[Below(static_cast<int64_t>(kCount))];
  }
  // From a normal distribution, and exact in every element type.
  Numbers Normal(int64_t count, double size);

 private:
  std::mt19937_64 engine_;
};

// The options are drawn, all else from the shape. `smooth`: activations that
// have a derivative everywhere.
RnnCase MakeRnnCase(RnnRandom* random, RnnCell cell, const RnnShape& shape,
                    bool smooth = false);

// The same call of both passes in guarded memory.
class RnnCallInMemory {
 public:
  RnnCallInMemory(const RnnCase& c, RnnDType dtype, Guard guard, bool strided);

  // Close to the formula, and the same bits as at the first call.
  void Check(const RnnResults& wanted, int threads);

 private:
  using Bytes = GuardedArray<unsigned char>;

  const void* Put(const Numbers& numbers);
  void PutInputs(bool strided);
  void* Result(const char* name, size_t count);
  void Compare(const char* name, const Numbers& wanted, int threads);
  std::string Text(int threads) const;

  const RnnCase& c_;
  const RnnDType dtype_;
  const Guard guard_;
  std::vector<std::unique_ptr<Bytes>> arrays_;
  std::map<std::string, std::unique_ptr<Bytes>> results_;
  std::map<std::string, std::vector<unsigned char>> first_;
  RnnForwardArgs forward_{};
  RnnBackwardArgs backward_{};
};

}  // namespace hw3tf
