// The arithmetic: numbers and sizes in, numbers out. No Python, no TensorFlow.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <future>
#include <thread>
#include <vector>

namespace own_op {

struct Options {
  int64_t rows = 0, columns = 0;
  int64_t threads = 0;  // at most; 0: one per processor
  float epsilon = 0;
};

// Calls body(begin, end) for parts of 0..count-1, each part on its own thread. To start
// a thread takes as long as some 50,000 numbers: little work is not shared out.
template <typename Body>
void Parallel(int64_t count, const Options& o, const Body& body) {
  static const int64_t processors = std::thread::hardware_concurrency();
  const int64_t most = o.threads > 0 ? o.threads : processors;
  const int64_t parts =
      std::max<int64_t>(1, std::min(most, o.rows * o.columns / 50000));
  const int64_t step = (count + parts - 1) / parts;
  std::vector<std::future<void>> others;
  for (int64_t begin = step; begin < count; begin += step)
    others.push_back(std::async(body, begin, std::min(begin + step, count)));
  body(0, std::min(step, count));
  for (auto& other : others) other.get();
}

// y = x_n - x_{n-1} + x_{n-2} - ... for each row, modulo 2^64.
inline void AlternatingSum(const Options& o, const int64_t* x, int64_t* y) {
  Parallel(o.rows, o, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      uint64_t h = 0;  // unsigned, because an int64_t must not overflow in C++
      for (int64_t t = 0; t < o.columns; ++t)
        h = static_cast<uint64_t>(x[row * o.columns + t]) - h;
      y[row] = static_cast<int64_t>(h);
    }
  });
}

// 1 / sqrt(mean(x^2) + epsilon). The sum is in double: no square overflows there.
inline float InverseRms(const Options& o, const float* x) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < o.columns; ++i) sum += double{x[i]} * x[i];
  return static_cast<float>(1 / std::sqrt(sum / double(o.columns) + o.epsilon));
}

// y = x * scale / sqrt(mean(x^2) + epsilon), the mean over a row.
inline void RmsNorm(const Options& o, const float* x, const float* scale, float* y) {
  Parallel(o.rows, o, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin, at = row * o.columns; row < end; ++row, at += o.columns) {
      const float r = InverseRms(o, x + at);
      for (int64_t i = 0; i < o.columns; ++i) y[at + i] = x[at + i] * r * scale[i];
    }
  });
}

// The gradients of x and scale. With r = 1 / rms and g = scale * dy they are
// dx = r * (g - x * r^2 * mean(g * x)), and dscale = the sum of dy * x * r over rows.
// Threads share the rows for dx, the columns for dscale: their number changes no sum.
inline void RmsNormGrad(const Options& o, const float* x, const float* scale,
                        const float* dy, float* dx, float* dscale) {
  std::vector<float> r(o.rows);
  Parallel(o.rows, o, [=, &r](int64_t begin, int64_t end) {
    for (int64_t row = begin, at = row * o.columns; row < end; ++row, at += o.columns) {
      r[row] = InverseRms(o, x + at);
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < o.columns; ++i)
        sum += double{scale[i] * dy[at + i]} * x[at + i];
      const float a = r[row], c = static_cast<float>(sum / double(o.columns)) * a * a;
      for (int64_t i = 0; i < o.columns; ++i)
        dx[at + i] = a * (scale[i] * dy[at + i] - c * x[at + i]);
    }
  });
  std::vector<double> sums(o.columns);
  Parallel(o.columns, o, [=, &r, &sums](int64_t begin, int64_t end) {
    for (int64_t row = 0, at = 0; row < o.rows; ++row, at += o.columns)
      for (int64_t i = begin; i < end; ++i) sums[i] += x[at + i] * r[row] * dy[at + i];
    std::copy(sums.data() + begin, sums.data() + end, dscale + begin);
  });
}

}  // namespace own_op
