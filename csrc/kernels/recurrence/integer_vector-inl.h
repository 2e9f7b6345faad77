// Vectors of integers modulo 2^32 and 2^64, and the loads that widen to them.

#pragma once

#include "kernels/vector/simd.h"

namespace hw3tf {
namespace {

template <typename State>
struct Ring;
template <>
struct Ring<int32_t> {
  using Number = uint32_t;
  typedef uint32_t Vector __attribute__((vector_size(kVecBytes)));
  typedef int32_t Signed __attribute__((vector_size(kVecBytes)));
  typedef uint32_t Unaligned
      __attribute__((vector_size(kVecBytes), aligned(4), may_alias));
};
template <>
struct Ring<int64_t> {
  using Number = uint64_t;
  typedef uint64_t Vector __attribute__((vector_size(kVecBytes)));
  typedef int64_t Signed __attribute__((vector_size(kVecBytes)));
  typedef uint64_t Unaligned
      __attribute__((vector_size(kVecBytes), aligned(8), may_alias));
};

template <typename State>
using Number = typename Ring<State>::Number;
template <typename State>
using RingVec = typename Ring<State>::Vector;
template <typename State>
using SignedVec = typename Ring<State>::Signed;

template <typename State>
constexpr int kRingLanes = kVecBytes / static_cast<int>(sizeof(State));

template <typename State>
inline RingVec<State> LoadRing(const State* from) {
  return *reinterpret_cast<const typename Ring<State>::Unaligned*>(from);
}

template <typename State>
inline void StoreRing(State* to, RingVec<State> value) {
  *reinterpret_cast<typename Ring<State>::Unaligned*>(to) = value;
}

template <typename State>
inline RingVec<State> BroadcastRing(Number<State> value) {
  return value - RingVec<State>{};
}

// A byte of NumPy or TensorFlow that is true if it is not 0.
struct Bool8 {
  uint8_t byte;
};

inline int64_t Widened(Bool8 x) { return x.byte != 0; }
template <typename Input>
inline int64_t Widened(Input x) {
  return x;
}

// The inputs at from[0 .. lanes), as numbers of the state.
template <typename State, typename Input>
struct Widen {
  static RingVec<State> Load(const Input* from) {
    constexpr int kBytes = kRingLanes<State> * static_cast<int>(sizeof(Input));
    typedef Input Narrow __attribute__((vector_size(kBytes)));
    Narrow narrow;
    std::memcpy(&narrow, from, kBytes);
    return reinterpret_cast<RingVec<State>>(
        __builtin_convertvector(narrow, SignedVec<State>));
  }
};
template <typename State>
struct Widen<State, State> {
  static RingVec<State> Load(const State* from) { return LoadRing(from); }
};
template <typename State>
struct Widen<State, Bool8> {
  static RingVec<State> Load(const Bool8* from) {
    const RingVec<State> bytes =
        Widen<State, uint8_t>::Load(reinterpret_cast<const uint8_t*>(from));
    return reinterpret_cast<RingVec<State>>(bytes != 0) & 1;
  }
};

template <int... kIndex>
struct Lanes {};
template <int kCount, int... kIndex>
struct MakeLanes : MakeLanes<kCount - 1, kCount - 1, kIndex...> {};
template <int... kIndex>
struct MakeLanes<0, kIndex...> {
  using Type = Lanes<kIndex...>;
};
template <typename State>
using AllLanes = typename MakeLanes<kRingLanes<State>>::Type;

// Lane i of the result is lane kFrom of x, or of y from lanes on. Written with
// constants: indices made in a loop cost a table and two instructions.
template <typename State, int... kFrom>
inline RingVec<State> Shuffle(RingVec<State> x, RingVec<State> y) {
#if defined(__clang__)
  return __builtin_shufflevector(x, y, kFrom...);
#else
  return __builtin_shuffle(x, y, RingVec<State>{Number<State>{kFrom}...});
#endif
}

template <typename State, int... kIndex>
inline RingVec<State> Mirror(RingVec<State> x, Lanes<kIndex...>) {
  return Shuffle<State, (kRingLanes<State> - 1 - kIndex)...>(x, x);
}

// Lanes move up, zeros come in.
template <typename State, int kShift, int... kIndex>
inline RingVec<State> MoveUp(RingVec<State> x, Lanes<kIndex...>) {
  return Shuffle<State, (kIndex < kShift ? kIndex
                                         : kRingLanes<State> + kIndex -
                                               kShift)...>(RingVec<State>{}, x);
}

// The last lane in all.
template <typename State, int... kIndex>
inline RingVec<State> LastLane(RingVec<State> x, Lanes<kIndex...>) {
  return Shuffle<State, (kIndex * 0 + kRingLanes<State> - 1)...>(x, x);
}

// Bits that tell how large numbers are; those of many are joined by |. The
// highest bit n that is set means -2^n <= x < 2^n, so that a bound is twice too
// large at most; it costs two instructions, and a maximum of magnitudes three
// to six.
template <typename Bits>
inline Bits SignChanges(Bits x) {
  return x ^ (x + x);
}

template <typename State>
inline Number<State> JoinLanes(RingVec<State> bits) {
  Number<State> joined = 0;
  for (int i = 0; i < kRingLanes<State>; ++i) joined |= bits[i];
  return joined;
}

// The largest magnitude that sign changes allow.
inline double LargestMagnitude(uint64_t sign_changes) {
  if (sign_changes == 0) return 0.0;
  const uint64_t bound = uint64_t{1} << (63 - __builtin_clzll(sign_changes));
  return static_cast<double>(bound);
}

// Calls `run` with a pointer of the type that `dtype` says; inputs that are
// wider than the state do not occur.
template <typename State, typename Run>
inline void WithInputs(IntDType dtype, const void* inputs, const Run& run) {
  switch (dtype) {
    case IntDType::kBool:
      return run(static_cast<const Bool8*>(inputs));
    case IntDType::kInt8:
      return run(static_cast<const int8_t*>(inputs));
    case IntDType::kUint8:
      return run(static_cast<const uint8_t*>(inputs));
    case IntDType::kInt16:
      return run(static_cast<const int16_t*>(inputs));
    case IntDType::kInt32:
      return run(static_cast<const int32_t*>(inputs));
    case IntDType::kInt64:
      if constexpr (sizeof(State) == 8)
        return run(static_cast<const int64_t*>(inputs));
  }
}

}  // namespace
}  // namespace hw3tf
