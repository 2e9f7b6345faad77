#include "tests/rnn/formula.h"

#include <algorithm>
#include <cmath>

namespace hw3tf {
namespace {

double Apply(RnnActivation activation, double x) {
  switch (activation) {
    case RnnActivation::kTanh:
      return std::tanh(x);
    case RnnActivation::kSigmoid:
      return 1 / (1 + std::exp(-x));
    case RnnActivation::kRelu:
      return std::max(x, 0.0);
    case RnnActivation::kHardSigmoid:
      return std::min(std::max(x + 3, 0.0), 6.0) / 6;
    default:
      return x;
  }
}

// At x, not from the activated value.
double Derivative(RnnActivation activation, double x) {
  const double y = Apply(activation, x);
  switch (activation) {
    case RnnActivation::kTanh:
      return 1 - y * y;
    case RnnActivation::kSigmoid:
      return y * (1 - y);
    case RnnActivation::kRelu:
      return x > 0 ? 1 : 0;
    case RnnActivation::kHardSigmoid:
      return x > -3 && x < 3 ? 1.0 / 6 : 0;
    default:
      return 1;
  }
}

size_t Index(int64_t i) { return static_cast<size_t>(i); }

double At(const Numbers& numbers, int64_t i) {
  return numbers.empty() ? 0 : numbers[Index(i)];
}

// One step of one batch entry, with what its gradient needs.
struct Step {
  int64_t time, position;
  Numbers h, c;       // before the step
  Numbers sums;       // (gates, U): before the activations; h~ of the GRU whole
  Numbers recurrent;  // of the GRU: h R_h + b'_h, or r h times the dropout
  Numbers new_h, new_c;
};

class Entry {
 public:
  Entry(const RnnCase& rnn_case, int64_t entry)
      : c_(rnn_case), b_(entry), units_(c_.shape.units), gates_(c_.gates()) {}

  void Forward(RnnResults* results) {
    Numbers h(Index(units_)), c(Index(units_));
    for (int64_t u = 0; u < units_; ++u) {
      h[Index(u)] = At(c_.initial_h, b_ * units_ + u);
      c[Index(u)] = At(c_.initial_c, b_ * units_ + u);
    }
    Numbers output(Index(units_), 0.0);
    for (int64_t i = 0; i < c_.shape.timesteps; ++i) {
      const int64_t t = c_.options.reverse ? c_.shape.timesteps - 1 - i : i;
      if (IsStep(t)) {
        Step step{t, i, h, c, {}, {}, {}, {}};
        TakeStep(&step);
        h = output = step.new_h;
        c = step.new_c;
        steps_.push_back(step);
      } else if (c_.options.zero_output_for_mask) {
        output.assign(Index(units_), 0.0);
      }
      if (c_.options.return_sequences || i + 1 == c_.shape.timesteps)
        results->outputs.insert(results->outputs.end(), output.begin(),
                                output.end());
    }
    results->last_h.insert(results->last_h.end(), h.begin(), h.end());
    if (c_.cell == RnnCell::kLstm)
      results->last_c.insert(results->last_c.end(), c.begin(), c.end());
  }

  void Backward(RnnResults* results) {
    Numbers dh(Index(units_)), dc(Index(units_));
    for (int64_t u = 0; u < units_; ++u) {
      dh[Index(u)] = At(c_.grad_last_h, b_ * units_ + u);
      dc[Index(u)] = At(c_.grad_last_c, b_ * units_ + u);
    }
    for (size_t i = steps_.size(); i-- > 0;) {
      AddOutputs(i, &dh);
      StepBack(steps_[i], &dh, &dc, results);
    }
    for (int64_t u = 0; u < units_; ++u) {
      results->grad_initial_h[Index(b_ * units_ + u)] = dh[Index(u)];
      results->grad_initial_c[Index(b_ * units_ + u)] = dc[Index(u)];
    }
  }

 private:
  bool IsStep(int64_t t) const {
    const int64_t at = b_ * c_.shape.timesteps + t;
    return (c_.mask.empty() || c_.mask[Index(at)]) &&
           (c_.lengths.empty() || t < c_.lengths[Index(b_)]);
  }

  double X(int64_t t, int64_t f) const {
    return c_
        .inputs[Index((b_ * c_.shape.timesteps + t) * c_.shape.features + f)];
  }
  double XMask(int gate, int64_t f) const {
    if (c_.input_dropout.empty()) return 1;
    const int g = c_.input_dropouts > 1 ? gate : 0;
    return c_.input_dropout[Index(
        (g * c_.shape.batch + b_) * c_.shape.features + f)];
  }
  double HMask(int gate, int64_t u) const {
    if (c_.recurrent_dropout.empty()) return 1;
    const int g = c_.recurrent_dropouts > 1 ? gate : 0;
    return c_.recurrent_dropout[Index((g * c_.shape.batch + b_) * units_ + u)];
  }
  double K(int64_t f, int gate, int64_t u) const {
    return c_.kernel[Index((f * gates_ + gate) * units_ + u)];
  }
  double R(int64_t v, int gate, int64_t u) const {
    return c_.recurrent_kernel[Index((v * gates_ + gate) * units_ + u)];
  }
  bool IsGru() const { return c_.cell == RnnCell::kGru; }
  // Whether the gate's h R is not simply added to its x K.
  bool IsCandidate(int gate) const { return IsGru() && gate == 2; }

  double OfInputs(const Step& step, int gate, int64_t u) const {
    double sum = At(c_.bias, gate * units_ + u);
    for (int64_t f = 0; f < c_.shape.features; ++f)
      sum += X(step.time, f) * XMask(gate, f) * K(f, gate, u);
    return sum;
  }
  double OfStates(const Step& step, int gate, int64_t u) const {
    double sum = At(c_.recurrent_bias, gate * units_ + u);
    for (int64_t v = 0; v < units_; ++v)
      sum += step.h[Index(v)] * HMask(gate, v) * R(v, gate, u);
    return sum;
  }

  void TakeStep(Step* step) {
    const auto at = [&](int gate, int64_t u) {
      return Index(gate * units_ + u);
    };
    const RnnActivation a = c_.options.activation;
    const RnnActivation s = c_.options.recurrent_activation;
    step->sums.resize(Index(gates_ * units_));
    step->new_h.resize(Index(units_));
    step->new_c = step->c;
    step->recurrent.resize(Index(units_));
    for (int gate = 0; gate < gates_; ++gate)
      for (int64_t u = 0; u < units_; ++u) {
        step->sums[at(gate, u)] = OfInputs(*step, gate, u);
        if (!IsCandidate(gate))
          step->sums[at(gate, u)] += OfStates(*step, gate, u);
      }
    if (c_.cell == RnnCell::kSimple)
      for (int64_t u = 0; u < units_; ++u)
        step->new_h[Index(u)] = Apply(a, step->sums[Index(u)]);
    if (c_.cell == RnnCell::kLstm)
      for (int64_t u = 0; u < units_; ++u) {
        const double c =
            Apply(s, step->sums[at(1, u)]) * step->c[Index(u)] +
            Apply(s, step->sums[at(0, u)]) * Apply(a, step->sums[at(2, u)]);
        step->new_c[Index(u)] = c;
        step->new_h[Index(u)] = Apply(s, step->sums[at(3, u)]) * Apply(a, c);
      }
    if (!IsGru()) return;
    for (int64_t u = 0; u < units_; ++u) {
      const double r = Apply(s, step->sums[at(1, u)]);
      if (c_.options.reset_after) {
        step->recurrent[Index(u)] = OfStates(*step, 2, u);
        step->sums[at(2, u)] += r * step->recurrent[Index(u)];
      } else {
        step->recurrent[Index(u)] = r * step->h[Index(u)] * HMask(2, u);
      }
    }
    for (int64_t u = 0; u < units_; ++u) {
      for (int64_t v = 0; v < units_ && !c_.options.reset_after; ++v)
        step->sums[at(2, u)] += step->recurrent[Index(v)] * R(v, 2, u);
      const double z = Apply(s, step->sums[at(0, u)]);
      step->new_h[Index(u)] =
          z * step->h[Index(u)] + (1 - z) * Apply(a, step->sums[at(2, u)]);
    }
  }

  // The gradients of all outputs that are those of step i.
  void AddOutputs(size_t i, Numbers* dh) const {
    if (c_.grad_outputs.empty()) return;
    const int64_t end =
        i + 1 < steps_.size() ? steps_[i + 1].position : c_.shape.timesteps;
    for (int64_t j = steps_[i].position; j < end; ++j) {
      if (j > steps_[i].position && c_.options.zero_output_for_mask) break;
      const bool all = c_.options.return_sequences;
      if (!all && j + 1 < c_.shape.timesteps) continue;
      const int64_t row = all ? b_ * c_.shape.timesteps + j : b_;
      for (int64_t u = 0; u < units_; ++u)
        (*dh)[Index(u)] += c_.grad_outputs[Index(row * units_ + u)];
    }
  }

  void StepBack(const Step& step, Numbers* dh, Numbers* dc,
                RnnResults* results) {
    const auto at = [&](int gate, int64_t u) {
      return Index(gate * units_ + u);
    };
    const RnnActivation a = c_.options.activation;
    const RnnActivation s = c_.options.recurrent_activation;
    Numbers ds(Index(gates_ * units_)), old_dh(Index(units_), 0.0);
    for (int64_t u = 0; u < units_; ++u) {
      const double d = (*dh)[Index(u)];
      if (c_.cell == RnnCell::kSimple) {
        ds[Index(u)] = d * Derivative(a, step.sums[Index(u)]);
      } else if (c_.cell == RnnCell::kLstm) {
        const double o = Apply(s, step.sums[at(3, u)]);
        const double c = step.new_c[Index(u)];
        const double d_c = (*dc)[Index(u)] + d * o * Derivative(a, c);
        const double i = Apply(s, step.sums[at(0, u)]);
        const double f = Apply(s, step.sums[at(1, u)]);
        ds[at(3, u)] = d * Apply(a, c) * Derivative(s, step.sums[at(3, u)]);
        ds[at(0, u)] = d_c * Apply(a, step.sums[at(2, u)]) *
                       Derivative(s, step.sums[at(0, u)]);
        ds[at(1, u)] =
            d_c * step.c[Index(u)] * Derivative(s, step.sums[at(1, u)]);
        ds[at(2, u)] = d_c * i * Derivative(a, step.sums[at(2, u)]);
        (*dc)[Index(u)] = d_c * f;
      } else {
        const double z = Apply(s, step.sums[at(0, u)]);
        const double candidate = Apply(a, step.sums[at(2, u)]);
        old_dh[Index(u)] = d * z;
        ds[at(0, u)] = d * (step.h[Index(u)] - candidate) *
                       Derivative(s, step.sums[at(0, u)]);
        ds[at(2, u)] = d * (1 - z) * Derivative(a, step.sums[at(2, u)]);
      }
    }
    // What multiplied R: h, each gate with its mask; and its gradient.
    Numbers states(Index(gates_ * units_)), d_states = ds;
    for (int gate = 0; gate < gates_; ++gate)
      for (int64_t u = 0; u < units_; ++u)
        states[at(gate, u)] = step.h[Index(u)] * HMask(gate, u);
    for (int64_t u = 0; u < units_ && IsGru(); ++u) {
      const double r = Apply(s, step.sums[at(1, u)]);
      const double slope = Derivative(s, step.sums[at(1, u)]);
      if (c_.options.reset_after) {
        ds[at(1, u)] = d_states[at(1, u)] =
            ds[at(2, u)] * step.recurrent[Index(u)] * slope;
        d_states[at(2, u)] = ds[at(2, u)] * r;
        continue;
      }
      states[at(2, u)] = step.recurrent[Index(u)];
      double d = 0;
      for (int64_t v = 0; v < units_; ++v) d += ds[at(2, v)] * R(u, 2, v);
      d *= HMask(2, u);
      old_dh[Index(u)] += d * r;
      ds[at(1, u)] = d_states[at(1, u)] = d * step.h[Index(u)] * slope;
    }
    for (int gate = 0; gate < gates_; ++gate) {
      const bool through_reset = IsCandidate(gate) && !c_.options.reset_after;
      for (int64_t u = 0; u < units_; ++u) {
        const double d = ds[at(gate, u)], d_r = d_states[at(gate, u)];
        results->grad_bias[at(gate, u)] += d;
        results->grad_recurrent_bias[at(gate, u)] += d_r;
        for (int64_t f = 0; f < c_.shape.features; ++f) {
          results->grad_kernel[Index((f * gates_ + gate) * units_ + u)] +=
              d * X(step.time, f) * XMask(gate, f);
          results->grad_inputs[Index(
              (b_ * c_.shape.timesteps + step.time) * c_.shape.features + f)] +=
              d * K(f, gate, u) * XMask(gate, f);
        }
        for (int64_t v = 0; v < units_; ++v) {
          results->grad_recurrent_kernel[Index((v * gates_ + gate) * units_ +
                                               u)] += d_r * states[at(gate, v)];
          if (!through_reset)
            old_dh[Index(v)] += d_r * R(v, gate, u) * HMask(gate, v);
        }
      }
    }
    *dh = old_dh;
  }

  const RnnCase& c_;
  const int64_t b_;
  const int64_t units_;
  const int gates_;
  std::vector<Step> steps_;
};

}  // namespace

int RnnCase::gates() const {
  return cell == RnnCell::kLstm ? 4 : cell == RnnCell::kGru ? 3 : 1;
}

RnnResults RnnFormula(const RnnCase& c) {
  RnnResults results;
  const int64_t columns = c.gates() * c.shape.units;
  results.grad_inputs.assign(c.inputs.size(), 0.0);
  results.grad_kernel.assign(c.kernel.size(), 0.0);
  results.grad_recurrent_kernel.assign(c.recurrent_kernel.size(), 0.0);
  results.grad_bias.assign(Index(columns), 0.0);
  results.grad_recurrent_bias.assign(Index(columns), 0.0);
  results.grad_initial_h.assign(Index(c.shape.batch * c.shape.units), 0.0);
  results.grad_initial_c = results.grad_initial_h;
  for (int64_t b = 0; b < c.shape.batch; ++b) {
    Entry entry(c, b);
    entry.Forward(&results);
    entry.Backward(&results);
  }
  return results;
}

double RnnObjective(const RnnCase& c) {
  RnnResults results;
  for (int64_t b = 0; b < c.shape.batch; ++b) Entry(c, b).Forward(&results);
  double sum = 0;
  const auto add = [&](const Numbers& values, const Numbers& grads) {
    for (size_t i = 0; i < grads.size(); ++i) sum += values[i] * grads[i];
  };
  add(results.outputs, c.grad_outputs);
  add(results.last_h, c.grad_last_h);
  add(results.last_c, c.grad_last_c);
  return sum;
}

}  // namespace hw3tf
