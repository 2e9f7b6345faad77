// The one number of TensorFlow's session configuration that matters here, read
// without its protocol buffer library.

#pragma once

#include <cstdint>

namespace hw3tf {

// tensorflow.ConfigProto, serialized in [at, end): int32
// intra_op_parallelism_threads = 2. Returns 0 if it is not set.
int FindIntraOpThreads(const uint8_t* at, const uint8_t* end);

}  // namespace hw3tf
