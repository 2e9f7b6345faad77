// The build of the kernels. Code that was compiled against one build would call
// another with the wrong arguments, and the linker compares names only.

#pragma once

#include "kernels/runtime/export.h"

namespace hw3tf {

// A digest of the sources of the kernel library that is loaded.
HW3TF_EXPORT const char* KernelsBuild();

}  // namespace hw3tf
