// Which build of the kernels this is. What was compiled against one build would
// call another with the wrong arguments; the linker asks for the name only.

#pragma once

#include "kernels/runtime/export.h"

namespace hw3tf {

// A digest of the kernels' sources: of those in the library that runs.
HW3TF_EXPORT const char* KernelsBuild();

}  // namespace hw3tf
