#include "kernels/attention/dropout.h"

#include "kernels/attention/attention.h"

namespace hw3tf {

void AttentionDropoutMask(const AttentionShape& shape, double rate,
                          uint64_t seed, uint8_t* keep) {
  // Of an empty mask another size may be 2^40.
  if (shape.num_heads * shape.query_len * shape.key_len == 0) return;
  const uint32_t threshold = DropoutThreshold(rate);
  for (int64_t b = 0; b < shape.batch; ++b)
    for (int64_t n = 0; n < shape.num_heads; ++n)
      for (int64_t t = 0; t < shape.query_len; ++t)
        for (int64_t s = 0; s < shape.key_len; ++s)
          *keep++ = DropoutKeeps(threshold, seed, b, n, t, s);
}

}  // namespace hw3tf
