// Choices of many factors such that every two levels of every two factors meet
// in one of them: few cases, in which no pair of options goes untested.

#pragma once

#include <cstddef>
#include <functional>
#include <random>
#include <utility>
#include <vector>

namespace hw3tf {

// One level per factor.
using Levels = std::vector<int>;

// Whether two levels may stand together: (factor, level, factor, level). Level
// 0 of a factor must go with everything.
using Allowed = std::function<bool(int, int, int, int)>;

class PairwiseArray {
 public:
  // counts: how many levels each factor has.
  PairwiseArray(const Levels& counts, const Allowed& allowed)
      : counts_(counts), allowed_(allowed) {
    for (int f = 0; f < Factors(); ++f)
      for (int level = 0; level < counts_[Index(f)]; ++level) {
        ids_.resize(Index(f) + 1);
        ids_[Index(f)].push_back(static_cast<int>(choices_.size()));
        choices_.push_back({f, level});
      }
    missing_.assign(choices_.size(), std::vector<char>(choices_.size(), 0));
    for (size_t i = 0; i < choices_.size(); ++i)
      for (size_t j = 0; j < i; ++j)
        if (choices_[i].first != choices_[j].first && Goes(i, j)) {
          missing_[i][j] = missing_[j][i] = 1;
          ++pairs_;
        }
  }

  // Greedy: of some random rows, each built around a missing pair by taking,
  // factor by factor, the level that meets the most missing ones, the best.
  std::vector<Levels> Rows() {
    std::vector<Levels> rows;
    for (int missing = pairs_; missing > 0;) {
      Levels best;
      int best_gain = 0;
      for (int attempt = 0; attempt < kAttempts; ++attempt) {
        const Levels row = MakeRow();
        const int gain = Gain(row);
        if (gain > best_gain) best = row;
        if (gain > best_gain) best_gain = gain;
      }
      rows.push_back(best);
      missing -= Gain(best);
      for (int f = 0; f < Factors(); ++f)
        for (int g = 0; g < Factors(); ++g)
          missing_[Id(f, best[Index(f)])][Id(g, best[Index(g)])] = 0;
    }
    return rows;
  }

  int pairs() const { return pairs_; }

 private:
  static constexpr int kAttempts = 10;

  static size_t Index(int factor) { return static_cast<size_t>(factor); }
  int Factors() const { return static_cast<int>(counts_.size()); }
  size_t Id(int factor, int level) const {
    return static_cast<size_t>(ids_[Index(factor)][Index(level)]);
  }
  bool Goes(size_t i, size_t j) const {
    const auto& [f, a] = choices_[i];
    const auto& [g, b] = choices_[j];
    return allowed_(f, a, g, b) && allowed_(g, b, f, a);
  }

  int Gain(const Levels& row) const {
    int gain = 0;
    for (int f = 0; f < Factors(); ++f)
      for (int g = 0; g < f; ++g)
        gain += missing_[Id(f, row[Index(f)])][Id(g, row[Index(g)])];
    return gain;
  }

  Levels MakeRow() {
    std::vector<std::pair<size_t, size_t>> open;
    for (size_t i = 0; i < choices_.size(); ++i)
      for (size_t j = 0; j < i; ++j)
        if (missing_[i][j]) open.push_back({i, j});
    const auto start = open[random_() % open.size()];
    Levels row(counts_.size(), -1);
    std::vector<size_t> taken;
    const auto take = [&](size_t id) {
      row[Index(choices_[id].first)] = choices_[id].second;
      taken.push_back(id);
    };
    take(start.first);
    take(start.second);
    const int shift = static_cast<int>(random_() % counts_.size());
    for (int i = 0; i < Factors(); ++i) {
      const int f = (i + shift) % Factors();
      if (row[Index(f)] < 0) take(BestLevel(f, taken));
    }
    return row;
  }

  size_t BestLevel(int f, const std::vector<size_t>& taken) {
    size_t best = Id(f, 0);
    int best_gain = -1;
    const int count = counts_[Index(f)];
    const int shift = static_cast<int>(random_() % Index(count));
    for (int i = 0; i < count; ++i) {
      const size_t id = Id(f, (i + shift) % count);
      int gain = 0;
      bool goes = true;
      for (size_t other : taken) {
        gain += missing_[id][other];
        goes = goes && Goes(id, other);
      }
      if (!goes || gain <= best_gain) continue;
      best = id;
      best_gain = gain;
    }
    return best;
  }

  const Levels counts_;
  const Allowed allowed_;
  std::vector<Levels> ids_;                   // of (factor, level)
  std::vector<std::pair<int, int>> choices_;  // of an id
  std::vector<std::vector<char>> missing_;
  int pairs_ = 0;
  std::mt19937 random_{1};
};

}  // namespace hw3tf
