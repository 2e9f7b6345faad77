// One feature, one unit, no activation: h_t = u h_{t-1} + w x_t + b along a
// line of memory, linear over the integers modulo 2^32 or 2^64.
//
// The last state is a polynomial in u (Horner's scheme with the step u^(lanes *
// accumulators), so that every lane has its own), all states are a prefix sum
// with powers of u (Hillis & Steele within a vector, the carry from vector to
// vector in a scalar). Both read memory once and are faster than it, with
// AVX-512 for every u, elsewhere for u = 1 and -1, which need no product.

#pragma once

#include "kernels/recurrence/integer_vector-inl.h"
#include "kernels/recurrence/kernel_table.h"

namespace hw3tf {
namespace {

template <typename Bits>
inline Bits Power(Bits base, int64_t exponent) {
  Bits power = 1;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if (exponent & 1) power *= base;
  return power;
}

constexpr int kAccumulators = 8;

template <typename State, typename Input>
struct LineOf {
  using Bits = Number<State>;
  using Vector = RingVec<State>;
  static constexpr int kLineLanes = kRingLanes<State>;
  static constexpr int kBlock = kLineLanes * kAccumulators;

  const Input* lowest;  // the smallest address
  int64_t count;
  bool reverse;
  Bits u, w, b;

  Bits At(int64_t i) const {  // in the order of the steps
    return static_cast<Bits>(Widened(lowest[reverse ? count - 1 - i : i]));
  }

  // Inputs i .. i + lanes - 1, in the order of the steps.
  Vector VectorAt(int64_t i) const {
    if (!reverse) return Widen<State, Input>::Load(lowest + i);
    return Mirror<State>(
        Widen<State, Input>::Load(lowest + count - kLineLanes - i),
        AllLanes<State>());
  }

  // The whole blocks from step `first` on; kPlain: the powers of u that are
  // left are 1.
  template <bool kPlain>
  void AddBlocks(int64_t first, Bits* sum, Bits* changes) const {
    const Bits u_lanes = Power(u, kLineLanes);
    const Vector step = BroadcastRing<State>(Power(u, kBlock));
    Vector acc[kAccumulators] = {};
    Vector bits[2] = {};
    for (int64_t i = first; i < count; i += kBlock) {
#pragma GCC unroll 8
      for (int k = 0; k < kAccumulators; ++k) {
        const Vector x = VectorAt(i + k * kLineLanes);
        bits[k % 2] |= SignChanges(x);
        acc[k] = kPlain ? acc[k] + x : acc[k] * step + x;
      }
    }
    Vector all = acc[0];
    for (int k = 1; k < kAccumulators; ++k) all = all * u_lanes + acc[k];
    Bits lanes = 0;
    for (int lane = 0; lane < kLineLanes; ++lane) lanes = lanes * u + all[lane];
    *sum = *sum * Power(u, count - first) + lanes;
    *changes |= JoinLanes<State>(bits[0] | bits[1]);
  }

  void End(LineEnd* end) const {
    Bits sum = 0, changes = 0;
    const int64_t head = count % kBlock;
    for (int64_t i = 0; i < head; ++i) {
      const Bits x = At(i);
      changes |= SignChanges(x);
      sum = sum * u + x;
    }
    if (head < count) {
      if (u == 1 || u == static_cast<Bits>(-1))
        AddBlocks<true>(head, &sum, &changes);
      else
        AddBlocks<false>(head, &sum, &changes);
    }
    end->sum = static_cast<int64_t>(sum);
    end->sign_changes = changes;
  }

  enum class Kind { kOne, kMinusOne, kAny };

  // Lane i gets u * h(i - 1) + its own, for all lanes and without a carry.
  // `power`: u^kShift.
  template <Kind kKind, int kShift = 1>
  static Vector Prefix(Vector x, Bits power) {
    if constexpr (kShift == kLineLanes) {
      return x;
    } else {
      const Vector moved = MoveUp<State, kShift>(x, AllLanes<State>());
      if constexpr (kKind == Kind::kAny)
        x += moved * power;
      else if constexpr (kKind == Kind::kMinusOne && kShift == 1)
        x -= moved;
      else
        x += moved;
      return Prefix<kKind, 2 * kShift>(x, power * power);
    }
  }

  static void Put(State* to, Vector value, bool stream) {
#if defined(__AVX512F__)
    if (stream) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to),
                          reinterpret_cast<__m512i>(value));
      return;
    }
#elif defined(__AVX2__)
    if (stream) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to),
                          reinterpret_cast<__m256i>(value));
      return;
    }
#elif defined(__SSE2__)
    if (stream) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to),
                       reinterpret_cast<__m128i>(value));
      return;
    }
#endif
    (void)stream;
    StoreRing(to, value);
  }

  template <Kind kKind, bool kScaled>
  void StatesOf(Bits state, State* states, bool stream) const {
    const auto scalar = [&](int64_t i) {
      state = state * u + (kScaled ? At(i) * w + b : At(i));
      states[i] = static_cast<State>(state);
    };
    int64_t i = 0;
    // Stores past the caches must be aligned; a state always is to its size.
    while (stream && i < count &&
           reinterpret_cast<uintptr_t>(states + i) % kVecBytes != 0)
      scalar(i++);
    Vector powers = {};
    for (int lane = 0; lane < kLineLanes; ++lane)
      powers[lane] = Power(u, lane + 1);
    const Bits u_lanes = powers[kLineLanes - 1];
    const Vector signs =  // of u = -1: a carry that is negated or not
        reinterpret_cast<Vector>(powers != 1);
    Vector carry = BroadcastRing<State>(state);
    for (; i + kLineLanes <= count; i += kLineLanes) {
      Vector x = VectorAt(i);
      if (kScaled) x = x * w + b;
      const Vector own = Prefix<kKind>(x, u);
      if constexpr (kKind == Kind::kAny) {
        // In a scalar: its product takes 3 cycles, that of a vector 15.
        Put(states + i, own + BroadcastRing<State>(state) * powers, stream);
        state = state * u_lanes + own[kLineLanes - 1];
      } else {
        Put(states + i,
            kKind == Kind::kOne ? own + carry : own + ((carry ^ signs) - signs),
            stream);
        carry += LastLane<State>(own, AllLanes<State>());
      }
    }
    if (kKind != Kind::kAny) state = carry[0];
    while (i < count) scalar(i++);
  }

  template <Kind kKind>
  void StatesOf(Bits state, State* states, bool stream) const {
    if (w == 1 && b == 0)
      StatesOf<kKind, false>(state, states, stream);
    else
      StatesOf<kKind, true>(state, states, stream);
  }

  void States(Bits state, State* states, bool stream) const {
    if (u == 1)
      StatesOf<Kind::kOne>(state, states, stream);
    else if (u == static_cast<Bits>(-1))
      StatesOf<Kind::kMinusOne>(state, states, stream);
    else
      StatesOf<Kind::kAny>(state, states, stream);
#if defined(__SSE2__)
    if (stream) _mm_sfence();
#endif
  }
};

template <typename State, typename Input>
inline LineOf<State, Input> MakeLine(const Line& line, const Input* inputs) {
  using Bits = Number<State>;
  return {line.reverse ? inputs - (line.count - 1) : inputs,
          line.count,
          line.reverse,
          static_cast<Bits>(line.recurrent_kernel),
          static_cast<Bits>(line.kernel),
          static_cast<Bits>(line.bias)};
}

template <typename State, typename Run>
inline void WithLine(const Line& line, const Run& run) {
  WithInputs<State>(line.input_dtype, line.inputs, [&](const auto* inputs) {
    run(MakeLine<State>(line, inputs));
  });
}

void FindLineEnd(const Line& line, LineEnd* end) {
  const auto run = [end](const auto& of) { of.End(end); };
  if (line.state_dtype == IntDType::kInt64)
    WithLine<int64_t>(line, run);
  else
    WithLine<int32_t>(line, run);
}

void WriteLineStates(const Line& line, int64_t state, void* states,
                     bool stream) {
  if (line.state_dtype == IntDType::kInt64)
    WithLine<int64_t>(line, [&](const auto& of) {
      of.States(static_cast<uint64_t>(state), static_cast<int64_t*>(states),
                stream);
    });
  else
    WithLine<int32_t>(line, [&](const auto& of) {
      of.States(static_cast<uint32_t>(state), static_cast<int32_t*>(states),
                stream);
    });
}

}  // namespace
}  // namespace hw3tf
