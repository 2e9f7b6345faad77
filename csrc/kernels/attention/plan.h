// The plan of a call: every batch entry in common terms, and the tasks.

#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/kernel_table.h"

namespace hw3tf {

class PlanStorage {
 public:
  PlanStorage(const AttentionShape& shape, const AttentionOptions& options);

  // Into how many parts the keys are cut because queries and heads alone make
  // too few tasks. It depends on the shape alone, as everything that decides
  // bits.
  int64_t KeySplits(int64_t query_tile) const;

  // Cuts the keys of every batch entry into `splits` parts, before any task is
  // added; their results go to `partials`.
  void Split(int64_t splits, float* partials);

  // Blocks of at most `largest` query rows, a multiple of `multiple`, and parts
  // of them if that many threads would else wait for the last.
  void AddQueryBlocks(int64_t largest, int64_t multiple, int threads);

  // Chunks of at most `largest` visible keys; at least one, possibly empty, for
  // every batch entry and head. If aligned, chunk i of every batch entry lies
  // within the same range of positions. Each with all queries, of which a block
  // has `block_rows`, or with ranges of them if there are few chunks. Chunks
  // are smaller if they are few.
  void AddKeyChunks(int64_t largest, int64_t multiple, bool aligned,
                    int64_t block_rows);

  // All keys of a batch entry, or of a part of it, with all heads.
  void AddKeyRanges();

  // Of the sequence with the most queries.
  int64_t QueryBlocks(int64_t block_rows) const;

  // Whether every query sees every key in the range of its batch entry.
  bool AllVisible() const;

  // Valid as long as this object and the masks.
  AttentionPlan View() const;

  // Query-key pairs that may see each other, all heads: the work.
  double VisiblePairs() const;

 private:
  // Query rows, of every key/value head, and the block that they are a part of.
  struct QueryPart {
    int64_t b, first, count, block_first, block_count;
    double work;
  };

  int64_t QueryRanges(int64_t chunks, int64_t rows) const;
  // Whether every query sees a small part of the keys, around itself.
  bool IsWindowed() const;
  // Of query rows of one head, in query-key pairs.
  double Work(const Sequence& s, int64_t first, int64_t count) const;
  std::vector<std::vector<QueryPart>> CutForThreads(
      const std::vector<std::vector<QueryPart>>& blocks, int64_t multiple,
      int threads) const;
  double Efficiency(const std::vector<std::vector<QueryPart>>& parts,
                    double total, int threads) const;

  AttentionShape shape_;
  bool is_causal_;
  AttentionPlan plan_;
  std::vector<Sequence> sequences_;
  std::vector<AttentionTask> tasks_;
};

}  // namespace hw3tf
