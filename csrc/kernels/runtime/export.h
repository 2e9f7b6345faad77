// The mark of the functions that libhw3tf_kernels exports, its contract. All
// other symbols are hidden.

#pragma once

#define HW3TF_EXPORT __attribute__((visibility("default")))
