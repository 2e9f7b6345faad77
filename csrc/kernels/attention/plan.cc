#include "kernels/attention/plan.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
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
  plan_.chunk_step = 1;
  plan_.key_tile = Hooked(test_hooks.key_tile, kUnlimited);
  plan_.packed = options.query_splits != nullptr;
  plan_.group = shape.num_heads / shape.num_kv_heads;
  plan_.statistics_stride =
      plan_.packed ? options.query_splits[shape.batch] : shape.query_len;
  // Windows that hide nothing do not count.
  const auto limit = [](int64_t window, int64_t positions) {
    return window < 0 || window >= positions - 1 ? kUnlimited : window;
  };
  plan_.before = limit(options.window_before, shape.query_len);
  plan_.after =
      options.is_causal ? 0 : limit(options.window_after, shape.key_len);
  plan_.transformed = options.bias != nullptr || options.soft_cap > 0;
  sequences_.reserve(static_cast<size_t>(shape.batch));
  for (int64_t b = 0; b < shape.batch; ++b) {
    const Sequence s = DescribeSequence(shape, options, b);
    if (s.query_len > 0 || s.key_len > 0) sequences_.push_back(s);
  }
}

int64_t PlanStorage::KeySplits(int64_t query_tile) const {
  constexpr int64_t kEnoughTiles = 64, kKeysPerSplit = 1024;
  const int64_t tiles = shape_.batch * shape_.num_kv_heads *
                        CeilDiv(shape_.query_len * plan_.group, query_tile);
  if (plan_.packed || tiles == 0 || tiles >= kEnoughTiles) return 1;
  return std::max<int64_t>(
      1, std::min(kEnoughTiles / tiles,
                  shape_.key_len /
                      Hooked(test_hooks.keys_per_split, kKeysPerSplit)));
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

double PlanStorage::Work(const Sequence& s, int64_t first,
                         int64_t count) const {
  // Reading and writing a row, in query-key pairs.
  constexpr double kOfRow = 8;
  const int64_t last = std::min(first + count, s.query_end * plan_.group) - 1;
  const auto seen = [&](int64_t row) {
    const int64_t t = row / plan_.group;
    const int64_t begin = std::max(s.key_begin, t - plan_.before);
    const int64_t end = std::min(s.key_end, t + plan_.after + 1);
    return static_cast<double>(std::max<int64_t>(0, end - begin));
  };
  double pairs = kOfRow * static_cast<double>(count);
  if (first <= last)
    pairs +=
        (seen(first) + seen(last)) / 2 * static_cast<double>(last + 1 - first);
  return pairs;
}

void PlanStorage::AddQueryBlocks(int64_t largest, int64_t multiple,
                                 int threads) {
  // As long as a task can still share the reading of keys between two tiles.
  const auto count_blocks = [&](int64_t rows) {
    int64_t count = 0;
    for (const Sequence& s : sequences_)
      count += shape_.num_kv_heads * CeilDiv(s.query_len * plan_.group, rows);
    return count;
  };
  while (largest >= 4 * multiple && count_blocks(largest) < Enough())
    largest = largest / 2 / multiple * multiple;

  std::vector<std::vector<QueryPart>> blocks;  // of every batch entry
  for (int64_t b = 0; b < static_cast<int64_t>(sequences_.size()); ++b) {
    const Sequence& s = sequences_[static_cast<size_t>(b)];
    const int64_t rows = s.query_len * plan_.group;
    if (rows == 0) continue;
    const int64_t size = EvenPiece(rows, largest, multiple);
    blocks.emplace_back();
    for (int64_t first = 0; first < rows; first += size) {
      const int64_t count = std::min(size, rows - first);
      blocks.back().push_back(
          {b, first, count, first, count, Work(s, first, count)});
    }
    // Causal blocks grow with their position: the longest first, so that the
    // threads finish together.
    if (is_causal_) std::reverse(blocks.back().begin(), blocks.back().end());
  }
  // For the same reason long sequences come before short ones.
  std::stable_sort(
      blocks.begin(), blocks.end(),
      [](const auto& a, const auto& b) { return a[0].work > b[0].work; });
  for (const auto& of_entry : CutForThreads(blocks, multiple, threads))
    for (int64_t kv_head = 0; kv_head < shape_.num_kv_heads; ++kv_head)
      for (const QueryPart& part : of_entry)
        tasks_.push_back({part.b, kv_head, /*index=*/0, /*pieces=*/1,
                          part.first, part.count, part.block_first,
                          part.block_count});
}

// Parts so small that the threads finish at about the same time. A part takes
// its key tiles from the whole block, so that no bit depends on the threads.
std::vector<std::vector<PlanStorage::QueryPart>> PlanStorage::CutForThreads(
    const std::vector<std::vector<QueryPart>>& blocks, int64_t multiple,
    int threads) const {
  constexpr double kEvenEnough = 0.9, kWorthMoreParts = 1.02;
  double total = 0;
  for (const auto& of_entry : blocks)
    for (const QueryPart& block : of_entry)
      total += block.work * static_cast<double>(shape_.num_kv_heads);
  auto chosen = blocks;
  double best = Efficiency(blocks, total, threads);
  for (int each = 1; each <= 8 && best < kEvenEnough; each *= 2) {
    const double largest = total / each / threads;
    auto parts = blocks;
    for (auto& of_entry : parts) {
      const auto whole = std::move(of_entry);
      of_entry.clear();
      for (const QueryPart& block : whole) {
        const auto wanted =
            static_cast<int64_t>(std::ceil(block.work / largest));
        const int64_t size = EvenPiece(
            block.count, CeilDiv(block.count, std::max<int64_t>(1, wanted)),
            multiple);
        const Sequence& s = sequences_[static_cast<size_t>(block.b)];
        const int64_t pieces = CeilDiv(block.count, size);
        for (int64_t i = 0; i < pieces; ++i) {
          const int64_t skip = (is_causal_ ? pieces - 1 - i : i) * size;
          QueryPart part = block;
          part.first += skip;
          part.count = std::min(size, block.count - skip);
          part.work = Work(s, part.first, part.count);
          of_entry.push_back(part);
        }
      }
    }
    const double efficiency = Efficiency(parts, total, threads);
    if (efficiency < best * kWorthMoreParts) continue;
    best = efficiency;
    chosen = std::move(parts);
  }
  return chosen;
}

// The share of the threads' time that is work, if all else costs nothing.
double PlanStorage::Efficiency(const std::vector<std::vector<QueryPart>>& parts,
                               double total, int threads) const {
  if (threads <= 1 || total <= 0) return 1;
  double largest = 0;
  for (const auto& of_entry : parts)
    for (const QueryPart& part : of_entry)
      largest = std::max(largest, part.work);
  // At worst the largest begins when all others are done.
  const double least = total / (total + threads * largest);
  if (least > 0.9) return least;
  // Small ones fill whatever the others leave. There may be any number of them.
  const double small = total / threads / 100;
  std::vector<double> ends(static_cast<size_t>(threads), 0.0);  // a heap
  for (const auto& of_entry : parts)
    for (int64_t kv_head = 0; kv_head < shape_.num_kv_heads; ++kv_head)
      for (const QueryPart& part : of_entry) {
        if (part.work < small) continue;
        std::pop_heap(ends.begin(), ends.end(), std::greater<>());
        ends.back() += part.work;
        std::push_heap(ends.begin(), ends.end(), std::greater<>());
      }
  const double even = total / threads;
  return even / std::max(even, *std::max_element(ends.begin(), ends.end()));
}

bool PlanStorage::IsWindowed() const {
  constexpr int64_t kSmallPart = 4;
  return plan_.before != kUnlimited && plan_.after != kUnlimited &&
         kSmallPart * (plan_.before + plan_.after) <= shape_.key_len;
}

// The ranges into which the queries of a backward pass are cut. They decide
// bits, so they depend on shape and masks alone. On 2 threads of a Zen 3 two
// ranges of 2048 causal queries cost 2 %, by the median of 12 runs in turn:
// keys are copied, and their gradients summed, once more.
int64_t PlanStorage::QueryRanges(int64_t chunks, int64_t rows) const {
  constexpr int64_t kFewChunks = 16, kRows = 1024, kRowsOfFewChunks = 512;
  // Causal chunks wait for those before them, and are of different sizes.
  const int64_t enough = is_causal_ ? 256 : 64;
  // Under a window a chunk is seen by few queries.
  if (plan_.packed || IsWindowed() || chunks == 0) return 1;
  const int64_t least =
      Hooked(test_hooks.range_rows,
             chunks > 2 * kFewChunks ? kRows : kRowsOfFewChunks);
  return std::max<int64_t>(1, std::min(enough / chunks, rows / least));
}

int64_t PlanStorage::QueryBlocks(int64_t block_rows) const {
  int64_t longest = 0;
  for (const Sequence& s : sequences_) longest = std::max(longest, s.query_len);
  return CeilDiv(longest * plan_.group, block_rows);
}

void PlanStorage::AddKeyChunks(int64_t largest, int64_t multiple, bool aligned,
                               int64_t block_rows) {
  constexpr int64_t kManyChunks = 128, kLongRows = 2048, kFewChunks = 16;
  // Under a window the chunks begin and end with the positions of a block of
  // queries: turns are taken by blocks, and a chunk should meet few of them.
  const bool windowed = IsWindowed();
  const int64_t positions = CeilDiv(block_rows, plan_.group);
  if (windowed) multiple = std::lcm(multiple, positions);
  const auto start = [&](const Sequence& s) {
    return aligned    ? 0
           : windowed ? s.key_begin / positions * positions
                      : s.key_begin;
  };
  const auto keys = [&](const Sequence& s) {
    return std::max<int64_t>(1,
                             (aligned ? shape_.key_len : s.key_end) - start(s));
  };
  const auto count_chunks = [&] {
    int64_t count = 0;
    for (const Sequence& s : sequences_)
      count += shape_.num_kv_heads * CeilDiv(keys(s), largest);
    return count;
  };
  const int64_t smallest = largest / 4;
  if (count_chunks() < Enough()) largest /= 2;
  const int64_t blocks = QueryBlocks(block_rows);
  if (windowed) {  // no tasks but the chunks: see QueryRanges
    while (largest > smallest && count_chunks() < kManyChunks) largest /= 2;
    // A chunk is rounded up to `multiple`, and must fit its scratch.
    largest = std::max(multiple, largest / multiple * multiple);
    // Where blocks do not begin with a position, one more.
    const int64_t reach = CeilDiv(plan_.before, positions) +
                          CeilDiv(plan_.after, positions) +
                          (block_rows % plan_.group != 0);
    for (const Sequence& s : sequences_)
      plan_.chunk_step = std::max(
          plan_.chunk_step, 1 + CeilDiv(reach * positions,
                                        EvenPiece(keys(s), largest, multiple)));
  } else if (is_causal_ && largest > smallest && count_chunks() <= kFewChunks &&
             blocks * block_rows >= kLongRows) {
    largest /= 2;
  }
  const int64_t blocks_of_range = std::max<int64_t>(
      1, CeilDiv(blocks, QueryRanges(count_chunks(), blocks * block_rows)));
  const int64_t ranges = std::max<int64_t>(1, CeilDiv(blocks, blocks_of_range));
  const auto add = [&](int64_t index) {
    bool any = false;
    for (int64_t b = 0; b < static_cast<int64_t>(sequences_.size()); ++b) {
      const Sequence& s = sequences_[static_cast<size_t>(b)];
      const int64_t size = EvenPiece(keys(s), largest, multiple);
      const int64_t pieces = CeilDiv(keys(s), size);
      if (index >= pieces) continue;
      any = true;
      const int64_t first =
          std::clamp(start(s) + index * size, s.key_begin, s.key_end);
      const int64_t last =
          std::clamp(start(s) + (index + 1) * size, s.key_begin, s.key_end);
      for (int64_t kv_head = 0; kv_head < shape_.num_kv_heads; ++kv_head)
        for (int64_t range = 0; range < ranges; ++range) {
          const int64_t begin = std::min(blocks, range * blocks_of_range);
          const int64_t end = std::min(blocks, begin + blocks_of_range);
          tasks_.push_back({b, kv_head, index, pieces, first, last - first,
                            begin, end - begin, range, ranges, start(s), size});
        }
    }
    return any;
  };
  // Chunks slowest, so that threads meet on one head as seldom as possible.
  for (int64_t begin = 0; begin < plan_.chunk_step && add(begin); ++begin)
    for (int64_t index = begin + plan_.chunk_step; add(index);)
      index += plan_.chunk_step;
}

void PlanStorage::AddKeyRanges() {
  for (int64_t b = 0; b < static_cast<int64_t>(sequences_.size()); ++b) {
    const Sequence& s = sequences_[static_cast<size_t>(b)];
    const int64_t keys = s.key_end - s.key_begin;
    tasks_.push_back({b, 0, 0, 1, s.key_begin, keys, s.key_begin, keys});
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
