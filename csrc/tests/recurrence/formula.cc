#include "tests/recurrence/formula.h"

#include <algorithm>

namespace hw3tf {
namespace {

// A sum of products of int64: the halves of each product in sums of their own,
// which 2^63 products do not fill.
struct Sum {
  __int128 high = 0;
  unsigned __int128 low = 0;

  void Add(int64_t a, int64_t b) {
    const __int128 product = static_cast<__int128>(a) * b;
    low += static_cast<uint64_t>(product);
    high += product >> 64;
  }

  // To floor(sum / 2^bits + 1/2), and into the range of int64 if it fits.
  bool Finish(int bits, int state_bits, Overflow overflow, int64_t* value) {
    if (bits > 0) low += uint64_t{1} << (bits - 1);
    high += static_cast<__int128>(low >> 64);
    uint64_t word = static_cast<uint64_t>(low);
    for (int i = 0; i < bits; ++i) {
      word = word >> 1 | static_cast<uint64_t>(high) << 63;
      high >>= 1;
    }
    const int64_t most =
        static_cast<int64_t>((uint64_t{1} << (state_bits - 1)) - 1);
    const auto number = static_cast<int64_t>(word);
    const bool fits =
        high == (number < 0 ? -1 : 0) && number <= most && number >= -most - 1;
    *value = state_bits == 64 ? number : static_cast<int32_t>(number);
    if (!fits && overflow == Overflow::kSaturate)
      *value = high < 0 ? -most - 1 : most;
    return fits;
  }
};

int64_t Activated(int64_t x, const RecurrenceOptions& options) {
  if (options.activation == Activation::kRelu) return x < 0 ? 0 : x;
  if (options.activation == Activation::kSign) return x < 0 ? -1 : x > 0;
  if (options.activation == Activation::kClip)
    return std::clamp(x, options.clip_low, options.clip_high);
  return x;
}

}  // namespace

RecurrenceResult RecurrenceFormula(const RecurrenceCase& c,
                                   std::vector<int64_t>* states) {
  const auto [batch, timesteps, features, units] = c.args.shape;
  const RecurrenceOptions& options = c.args.options;
  const int state_bits = c.args.state_dtype == IntDType::kInt64 ? 64 : 32;
  const auto at = [](const std::vector<int64_t>& array, int64_t i) {
    return array[static_cast<size_t>(i)];
  };
  states->clear();
  for (int64_t b = 0; b < batch; ++b) {
    std::vector<int64_t> state(static_cast<size_t>(units), 0);
    for (int64_t j = 0; !c.initial_state.empty() && j < units; ++j)
      state[static_cast<size_t>(j)] = at(c.initial_state, b * units + j);
    for (int64_t step = 0; step < timesteps; ++step) {
      const int64_t t = options.reverse ? timesteps - 1 - step : step;
      const int64_t row = b * timesteps + t;
      std::vector<int64_t> next = state;
      const bool masked =
          !c.mask.empty() && c.mask[static_cast<size_t>(row)] == 0;
      for (int64_t j = 0; !masked && j < units; ++j) {
        Sum sum;
        if (!c.bias.empty()) sum.Add(at(c.bias, j), 1);
        for (int64_t i = 0; i < features; ++i)
          sum.Add(at(c.inputs, row * features + i),
                  at(c.kernel, i * units + j));
        for (int64_t i = 0; i < units; ++i)
          sum.Add(at(state, i), at(c.recurrent_kernel, i * units + j));
        int64_t value;
        if (!sum.Finish(options.fractional_bits, state_bits, options.overflow,
                        &value) &&
            options.overflow == Overflow::kRaise)
          return {RecurrenceStatus::kOverflow, b, t};
        next[static_cast<size_t>(j)] = Activated(value, options);
      }
      state = next;
      if (options.return_sequences)
        states->insert(states->end(), state.begin(), state.end());
    }
    if (!options.return_sequences)
      states->insert(states->end(), state.begin(), state.end());
  }
  return {RecurrenceStatus::kDone, 0, 0};
}

}  // namespace hw3tf
