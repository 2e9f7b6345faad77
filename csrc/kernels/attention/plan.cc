#include "kernels/attention/plan.h"

#include <algorithm>
#include <utility>

#include "kernels/runtime/test_hooks.h"

namespace hw3tf {
namespace {

// Tasks for many threads: with fewer, they are made smaller.
constexpr int64_t kEnough = 32;

int64_t Enough() { return Hooked(test_hooks.enough_tasks, kEnough); }

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The size of the pieces that cut `count` into as few as `largest` allows, all
// about equal: 300 rows are 160 + 140, not 256 + 44.
int64_t EvenPiece(int64_t count, int64_t largest, int64_t multiple) {
  const int64_t pieces = CeilDiv(count, largest);
  return CeilDiv(CeilDiv(count, pieces), multiple) * multiple;
}

Sequence DescribeSequence(const AttentionShape& shape,
                          const AttentionOptions& options, int64_t b) {
  Sequence s{};
  s.b = b;
  s.query_len = shape.query_len;
  s.key_len = shape.key_len;
  s.statistics = b * shape.num_heads * shape.query_len;
  if (options.query_splits) {
    s.query_row = s.statistics = options.query_splits[b];
    s.key_row = options.key_splits[b];
    s.query_len = options.query_splits[b + 1] - s.query_row;
    s.key_len = options.key_splits[b + 1] - s.key_row;
  }
  s.query_end = s.query_len;
  s.key_end = s.key_len;
  if (options.query_lengths)
    s.query_end = std::min<int64_t>(s.query_end, options.query_lengths[b]);
  if (options.key_lengths)
    s.key_end = std::min<int64_t>(s.key_end, options.key_lengths[b]);
  if (options.query_mask)
    s.query_mask = options.query_mask + b * options.query_mask_stride;
  if (options.key_mask) {
    // A mask of a prefix, or of any range, is a pair of lengths.
    const uint8_t* mask = options.key_mask + b * options.key_mask_stride;
    while (s.key_end > 0 && !mask[s.key_end - 1]) --s.key_end;
    while (s.key_begin < s.key_end && !mask[s.key_begin]) ++s.key_begin;
    if (std::find(mask + s.key_begin, mask + s.key_end, 0) != mask + s.key_end)
      s.key_mask = mask;
  }
  return s;
}

}  // namespace

PlanStorage::PlanStorage(const AttentionShape& shape,
                         const AttentionOptions& options)
    : shape_(shape), is_causal_(options.is_causal), plan_{} {
  plan_.splits = 1;
  plan_.key_tile = Hooked(test_hooks.key_tile, kUnlimited);
  plan_.packed = options.query_splits != nullptr;
  plan_.group = shape.num_heads / shape.num_kv_heads;
  plan_.statistics_stride =
      plan_.packed ? options.query_splits[shape.batch] : shape.query_len;
  const auto limit = [](int64_t window) {
    return window < 0 ? kUnlimited : std::min(window, kUnlimited);
  };
  plan_.before = limit(options.window_before);
  plan_.after = options.is_causal ? 0 : limit(options.window_after);
  plan_.transformed = options.bias != nullptr || options.soft_cap > 0;
  sequences_.reserve(static_cast<size_t>(shape.batch));
  for (int64_t b = 0; b < shape.batch; ++b) {
    const Sequence s = DescribeSequence(shape, options, b);
    if (s.query_len > 0 || s.key_len > 0) sequences_.push_back(s);
  }
}

void PlanStorage::Split(int64_t splits, float* partials) {
  plan_.splits = splits;
  plan_.partials = partials;
  std::vector<Sequence> parts;
  parts.reserve(sequences_.size() * static_cast<size_t>(splits));
  for (const Sequence& s : sequences_) {
    const int64_t size = CeilDiv(s.key_end - s.key_begin, splits);
    for (int64_t i = 0; i < splits; ++i) {
      Sequence part = s;
      part.key_begin = std::min(s.key_end, s.key_begin + i * size);
      part.key_end = std::min(s.key_end, part.key_begin + size);
      parts.push_back(part);
    }
  }
  sequences_ = std::move(parts);
}

void PlanStorage::AddQueryBlocks(int64_t largest, int64_t multiple) {
  // As long as a task can still share the reading of keys between two tiles.
  const auto count_blocks = [&](int64_t rows) {
    int64_t count = 0;
    for (const Sequence& s : sequences_)
      count += shape_.num_kv_heads * CeilDiv(s.query_len * plan_.group, rows);
    return count;
  };
  while (largest >= 4 * multiple && count_blocks(largest) < Enough())
    largest = largest / 2 / multiple * multiple;
  for (int64_t b = 0; b < static_cast<int64_t>(sequences_.size()); ++b) {
    const Sequence& s = sequences_[static_cast<size_t>(b)];
    const int64_t rows = s.query_len * plan_.group;
    if (rows == 0) continue;
    const int64_t size = EvenPiece(rows, largest, multiple);
    const int64_t blocks = CeilDiv(rows, size);
    for (int64_t kv_head = 0; kv_head < shape_.num_kv_heads; ++kv_head)
      for (int64_t i = 0; i < blocks; ++i) {
        // Causal blocks grow with their position: the longest first, so that
        // the threads finish together.
        const int64_t index = is_causal_ ? blocks - 1 - i : i;
        const int64_t first = index * size;
        tasks_.push_back(
            {b, kv_head, index, blocks, first, std::min(size, rows - first)});
      }
  }
}

void PlanStorage::AddKeyChunks(int64_t largest, int64_t multiple,
                               bool aligned) {
  int64_t count = 0;
  for (const Sequence& s : sequences_)
    count +=
        shape_.num_kv_heads *
        CeilDiv(aligned ? shape_.key_len : s.key_end - s.key_begin, largest);
  if (count < Enough()) largest /= 2;
  // Chunks slowest, so that threads meet on one head as seldom as possible.
  bool more = true;
  for (int64_t index = 0; more; ++index) {
    more = false;
    for (int64_t b = 0; b < static_cast<int64_t>(sequences_.size()); ++b) {
      const Sequence& s = sequences_[static_cast<size_t>(b)];
      const int64_t start = aligned ? 0 : s.key_begin;
      const int64_t keys =
          std::max<int64_t>(1, (aligned ? shape_.key_len : s.key_end) - start);
      const int64_t size = EvenPiece(keys, largest, multiple);
      const int64_t pieces = CeilDiv(keys, size);
      if (index >= pieces) continue;
      more = true;
      const int64_t first =
          std::clamp(start + index * size, s.key_begin, s.key_end);
      const int64_t last =
          std::clamp(start + (index + 1) * size, s.key_begin, s.key_end);
      for (int64_t kv_head = 0; kv_head < shape_.num_kv_heads; ++kv_head)
        tasks_.push_back({b, kv_head, index, pieces, first, last - first});
    }
  }
}

void PlanStorage::AddKeyRanges() {
  for (int64_t b = 0; b < static_cast<int64_t>(sequences_.size()); ++b) {
    const Sequence& s = sequences_[static_cast<size_t>(b)];
    tasks_.push_back({b, 0, 0, 1, s.key_begin, s.key_end - s.key_begin});
  }
}

bool PlanStorage::AllVisible() const {
  if (plan_.before != kUnlimited || plan_.after != kUnlimited) return false;
  for (const Sequence& s : sequences_)
    if (s.query_mask || s.key_mask || s.query_end < s.query_len) return false;
  return true;
}

AttentionPlan PlanStorage::View() const {
  AttentionPlan plan = plan_;
  plan.sequences = sequences_.data();
  plan.num_sequences = static_cast<int64_t>(sequences_.size());
  plan.tasks = tasks_.data();
  plan.num_tasks = static_cast<int64_t>(tasks_.size());
  return plan;
}

double PlanStorage::VisiblePairs() const {
  double pairs = 0;
  for (const Sequence& s : sequences_) {
    const auto keys = static_cast<double>(s.key_end - s.key_begin);
    const auto window = static_cast<double>(plan_.before + plan_.after + 1);
    const double seen = plan_.after == 0 && plan_.before == kUnlimited
                            ? keys / 2
                            : std::min(keys, window);
    pairs += static_cast<double>(s.query_end) * seen;
  }
  return pairs * static_cast<double>(shape_.num_heads);
}

}  // namespace hw3tf
