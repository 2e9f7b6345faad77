// One step of a cell in one panel of units, elementwise: from the sums of the
// products to the states, and back from the gradients of the states to those of
// the sums.
//
// Loops of their own beside the products, not the end of a tile: 1 to 2 %
// faster with AVX-512, 5 to 15 % with AVX2, where the products need all
// registers.

#pragma once

#include "kernels/rnn/lanes-inl.h"

namespace hw3tf {
namespace {

// Units [unit, unit + count) of some rows; what is a vector or a slot for each
// row lies one row behind the other.
struct PanelUnits {
  int64_t rows;
  int64_t unit, count;
};

template <typename Real, typename Activations>
__attribute__((noinline)) void LstmStates(const Activations& act,
                                          const PanelUnits& panel,
                                          const Real* sums, const Real* old_c,
                                          Real* c, Real* gates,
                                          Real* const* h) {
  constexpr int kLanesHere = kLanesOf<Real>;
  for (int64_t r = 0; r < panel.rows; ++r) {
    const Real* const z = sums + r * kRnnSlots * kLanesHere;
    const auto i = act.S(Load(z)), f = act.S(Load(z + kLanesHere));
    const auto g = act.A(Load(z + 2 * kLanesHere));
    const auto o = act.S(Load(z + 3 * kLanesHere));
    const VecOf<Real> new_c = f * Load(old_c + r * kLanesHere) + i * g;
    Store(c + r * kLanesHere, new_c);
    StoreSome(h[r] + panel.unit, o * act.A(new_c), panel.count);
    if (!gates) continue;
    Real* const to = gates + r * kRnnSlots * kLanesHere;
    Store(to, i);
    Store(to + kLanesHere, f);
    Store(to + 2 * kLanesHere, g);
    Store(to + 3 * kLanesHere, o);
  }
}

// The GRU whose r multiplies h R + b'.
template <typename Real, typename Activations>
__attribute__((noinline)) void GruStates(const Activations& act,
                                         const PanelUnits& panel,
                                         const Real* sums,
                                         const Real* const* old_h, Real* gates,
                                         Real* const* h) {
  constexpr int kLanesHere = kLanesOf<Real>;
  for (int64_t r = 0; r < panel.rows; ++r) {
    const Real* const s = sums + r * kRnnSlots * kLanesHere;
    const auto z = act.S(Load(s + kLanesHere));
    const auto reset = act.S(Load(s + 2 * kLanesHere));
    const VecOf<Real> recurrent = Load(s + 3 * kLanesHere);
    const auto g = act.A(Load(s) + reset * recurrent);
    const VecOf<Real> old = LoadSome(old_h[r] + panel.unit, panel.count);
    StoreSome(h[r] + panel.unit, z * old + (1 - z) * g, panel.count);
    if (!gates) continue;
    Real* const to = gates + r * kRnnSlots * kLanesHere;
    Store(to, g);
    Store(to + kLanesHere, z);
    Store(to + 2 * kLanesHere, reset);
    Store(to + 3 * kLanesHere, recurrent);
  }
}

// The GRU whose r multiplies h, in two halves: between them r h goes through
// the product. The activated z and r take the place of their sums.
template <typename Real, typename Activations>
__attribute__((noinline)) void GruResets(const Activations& act,
                                         const PanelUnits& panel, Real* sums,
                                         const Real* const* masked_h,
                                         Real* reset_h, int64_t units) {
  constexpr int kLanesHere = kLanesOf<Real>;
  for (int64_t r = 0; r < panel.rows; ++r) {
    Real* const s = sums + r * kRnnSlots * kLanesHere;
    const auto reset = act.S(Load(s + 2 * kLanesHere));
    Store(s + kLanesHere, act.S(Load(s + kLanesHere)));
    Store(s + 2 * kLanesHere, reset);
    StoreSome(reset_h + r * units + panel.unit,
              reset * LoadSome(masked_h[r] + panel.unit, panel.count),
              panel.count);
  }
}

template <typename Real, typename Activations>
__attribute__((noinline)) void GruStatesAfterReset(
    const Activations& act, const PanelUnits& panel, const Real* sums,
    const Real* const* old_h, Real* gates, Real* const* h) {
  constexpr int kLanesHere = kLanesOf<Real>;
  for (int64_t r = 0; r < panel.rows; ++r) {
    const Real* const s = sums + r * kRnnSlots * kLanesHere;
    const VecOf<Real> z = Load(s + kLanesHere);
    const auto g = act.A(Load(s));
    const VecOf<Real> old = LoadSome(old_h[r] + panel.unit, panel.count);
    StoreSome(h[r] + panel.unit, z * old + (1 - z) * g, panel.count);
    if (!gates) continue;
    Real* const to = gates + r * kRnnSlots * kLanesHere;
    Store(to, g);
    Store(to + kLanesHere, z);
    Store(to + 2 * kLanesHere, Load(s + 2 * kLanesHere));
  }
}

// Up to four vectors of units.
template <typename Real, typename Activations>
__attribute__((noinline)) void SimpleStates(const Activations& act,
                                            const PanelUnits& panel,
                                            const Real* sums, Real* const* h) {
  constexpr int kLanesHere = kLanesOf<Real>;
  for (int64_t r = 0; r < panel.rows; ++r) {
    const Real* const s = sums + r * kRnnSlots * kLanesHere;
    for (int64_t at = 0; at < panel.count; at += kLanesHere)
      StoreSome(h[r] + panel.unit + at, act.A(Load(s + at)), panel.count - at);
  }
}

// The gradient of the outputs of each row, from unit 0 on; nullptr = zero.
template <typename Real>
inline VecOf<Real> OutputGradient(const Real* const* grad_outputs, int64_t r,
                                  int64_t unit, int64_t count) {
  if (!grad_outputs[r]) return VecOf<Real>{};
  return LoadSome(grad_outputs[r] + unit, count);
}

// grad_h and grad_c: of the states after the step, then (c) before it; both
// from unit 0 of the first row on.
template <typename Real>
struct StateGradients {
  const Real* const* outputs;
  Real* h;
  int64_t h_stride;
  Real* c;
  int64_t c_stride;

  VecOf<Real> OfH(int64_t r, int64_t unit, int64_t count) const {
    return Load(h + r * h_stride + unit) +
           OutputGradient(outputs, r, unit, count);
  }
};

template <typename Real, typename Activations>
__attribute__((noinline)) void LstmGradients(const Activations& act,
                                             const PanelUnits& panel,
                                             const Real* gates, const Real* c,
                                             const Real* old_c,
                                             const StateGradients<Real>& grads,
                                             Real* dz) {
  constexpr int kLanesHere = kLanesOf<Real>;
  for (int64_t r = 0; r < panel.rows; ++r) {
    const Real* const from = gates + r * kRnnSlots * kLanesHere;
    const VecOf<Real> i = Load(from), f = Load(from + kLanesHere);
    const VecOf<Real> g = Load(from + 2 * kLanesHere);
    const VecOf<Real> o = Load(from + 3 * kLanesHere);
    const auto a = act.A(Load(c + r * kLanesHere));
    const VecOf<Real> dh = grads.OfH(r, panel.unit, panel.count);
    Real* const grad_c = grads.c + r * grads.c_stride + panel.unit;
    const VecOf<Real> dc = dh * o * act.SlopeOfA(a) + Load(grad_c);
    Store(grad_c, dc * f);
    Real* const to = dz + r * kRnnSlots * kLanesHere;
    const auto keep = [&](VecOf<Real> x) {
      return panel.count < kLanesHere ? KeepSome<Real>(x, panel.count) : x;
    };
    Store(to, keep(dc * g * act.SlopeOfS(i)));
    Store(to + kLanesHere,
          keep(dc * Load(old_c + r * kLanesHere) * act.SlopeOfS(f)));
    Store(to + 2 * kLanesHere, keep(dc * i * act.SlopeOfA(g)));
    Store(to + 3 * kLanesHere, keep(dh * a * act.SlopeOfS(o)));
  }
}

// What does not go through R stays in grad_h: the gradient times z.
template <typename Real, typename Activations>
__attribute__((noinline)) void GruGradients(const Activations& act,
                                            const PanelUnits& panel,
                                            const Real* gates,
                                            const Real* const* old_h,
                                            const StateGradients<Real>& grads,
                                            bool reset_after, Real* dz) {
  constexpr int kLanesHere = kLanesOf<Real>;
  for (int64_t r = 0; r < panel.rows; ++r) {
    const Real* const from = gates + r * kRnnSlots * kLanesHere;
    const VecOf<Real> g = Load(from), z = Load(from + kLanesHere);
    const VecOf<Real> reset = Load(from + 2 * kLanesHere);
    const VecOf<Real> dh = grads.OfH(r, panel.unit, panel.count);
    const VecOf<Real> old = LoadSome(old_h[r] + panel.unit, panel.count);
    const VecOf<Real> dg = dh * (1 - z) * act.SlopeOfA(g);
    Real* const to = dz + r * kRnnSlots * kLanesHere;
    const auto keep = [&](VecOf<Real> x) {
      return panel.count < kLanesHere ? KeepSome<Real>(x, panel.count) : x;
    };
    Store(to, keep(dg));
    Store(to + kLanesHere, keep(dh * (old - g) * act.SlopeOfS(z)));
    Store(grads.h + r * grads.h_stride + panel.unit, dh * z);
    if (reset_after) {
      const VecOf<Real> recurrent = Load(from + 3 * kLanesHere);
      Store(to + 2 * kLanesHere, keep(dg * recurrent * act.SlopeOfS(reset)));
      Store(to + 3 * kLanesHere, keep(dg * reset));
    } else {
      Store(to + 2 * kLanesHere, VecOf<Real>{});
      Store(to + 3 * kLanesHere, VecOf<Real>{});
    }
  }
}

// The second half of the GRU whose r multiplies h: from the gradient of r h,
// one row behind the other with `stride`, to those of r and h.
template <typename Real, typename Activations>
__attribute__((noinline)) void GruResetGradients(
    const Activations& act, const PanelUnits& panel, const Real* gates,
    const Real* const* old_h, const Real* const* dropout,
    const Real* grad_reset_h, int64_t stride, const StateGradients<Real>& grads,
    Real* dz) {
  constexpr int kLanesHere = kLanesOf<Real>;
  for (int64_t r = 0; r < panel.rows; ++r) {
    const VecOf<Real> reset =
        Load(gates + r * kRnnSlots * kLanesHere + 2 * kLanesHere);
    VecOf<Real> grad = Load(grad_reset_h + r * stride + panel.unit);
    if (dropout) grad = grad * LoadSome(dropout[r] + panel.unit, panel.count);
    const VecOf<Real> old = LoadSome(old_h[r] + panel.unit, panel.count);
    Real* const grad_h = grads.h + r * grads.h_stride + panel.unit;
    Store(grad_h, Load(grad_h) + grad * reset);
    const VecOf<Real> dr = grad * old * act.SlopeOfS(reset);
    Store(dz + r * kRnnSlots * kLanesHere + 2 * kLanesHere,
          panel.count < kLanesHere ? KeepSome<Real>(dr, panel.count) : dr);
  }
}

template <typename Real, typename Activations>
__attribute__((noinline)) void SimpleGradients(
    const Activations& act, const PanelUnits& panel, const Real* const* h,
    const StateGradients<Real>& grads, Real* dz) {
  constexpr int kLanesHere = kLanesOf<Real>;
  for (int64_t r = 0; r < panel.rows; ++r) {
    Real* const to = dz + r * kRnnSlots * kLanesHere;
    for (int64_t at = 0; at < kRnnSlots * kLanesHere; at += kLanesHere) {
      const int64_t count = panel.count - at, unit = panel.unit + at;
      if (count <= 0) {
        Store(to + at, VecOf<Real>{});
        continue;
      }
      const VecOf<Real> slope = act.SlopeOfA(LoadSome(h[r] + unit, count));
      const VecOf<Real> dh = grads.OfH(r, unit, count) * slope;
      Store(to + at, count < kLanesHere ? KeepSome<Real>(dh, count) : dh);
    }
  }
}

}  // namespace
}  // namespace hw3tf
