// Any operation as a custom call of XLA: what its op is where TensorFlow runs
// the graph itself.
//
// A custom call is told no shapes. So its first operand is a vector of int64
// that hw3tf/ops/xla_module.py makes: the header, which is
//   the number of attributes and the number of operands that follow;
//   the types that the call chooses, each as its index among those that it may
//     be, in the order of the table;
//   the threads of the session, 0 if they are not set;
//   the attributes in the order of the table, but scalar inputs and what is not
//     read: bits of a double, the index of a word, or the integer itself;
//   of each operand the rank, -1 where it is not given;
//   the sizes of each operand that is given.
// A graph saved before an option was added has less of them: the last
// attributes, and the last of the operands that a gradient shares with its
// operation, are then as if not given.
// Then follow the scalar inputs, the operands that are given and their sizes
// once more, as they are at run time. All else is as in the op: the same
// checks, the same kernel.

#pragma once

#include <string>
#include <vector>

#include "operations/description.h"
#include "tensorflow/exceptions.h"
#include "tensorflow/xla_registry.h"

namespace hw3tf {

void RunTarget(const Operation& operation, const int64_t* header,
               const void** arrays, void* results,
               XlaCustomCallStatus_* status);

template <XlaTarget kTarget>
void Guarded(void* results, const void** arrays, const char* config,
             size_t config_size, XlaCustomCallStatus_* status) {
  WithoutExceptions(
      [&] { kTarget(results, arrays, config, config_size, status); },
      [&](TF_Code, const char* message) {
        WithoutExceptions([&] { SetXlaError(status, message); },
                          [&](TF_Code, const char*) {
                            // Fits into the string itself.
                            SetXlaError(status, "out of memory");
                          });
      });
}

// Headers of version 1 as those of version 2. Graphs saved before contain them.
std::vector<int64_t> AttentionHeaderOfVersion1(const int64_t* header);
std::vector<int64_t> AttentionGradHeaderOfVersion1(const int64_t* header);
std::vector<int64_t> IntegerRnnHeaderOfVersion1(const int64_t* header);

}  // namespace hw3tf
