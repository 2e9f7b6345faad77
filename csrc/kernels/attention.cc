// Forward and backward. For now the plain form serves every type; the fast
// kernels of this contract follow.

#include "kernels/attention.h"

#include <cassert>

#include "kernels/attention_plain.h"

namespace hw3tf {
namespace {

void AssertShape(const AttentionShape& shape) {
  assert(shape.batch >= 0 && shape.query_len >= 0 && shape.key_len >= 0);
  assert(shape.head_dim >= 1 && shape.value_dim >= 1);
  assert(shape.num_kv_heads >= 1 && shape.num_heads % shape.num_kv_heads == 0);
  (void)shape;
}

}  // namespace

bool AttentionForward(const AttentionForwardArgs& args, int num_threads) {
  AssertShape(args.shape);
  return AttentionForwardPlain(args, num_threads);
}

bool AttentionBackward(const AttentionBackwardArgs& args, int num_threads) {
  AssertShape(args.shape);
  return AttentionBackwardPlain(args, num_threads);
}

AttentionTiles GetAttentionTiles() { return {32, 128, 128, 128}; }

}  // namespace hw3tf
