#include "kernels/runtime/build.h"

namespace hw3tf {

const char* KernelsBuild() { return HW3TF_KERNELS_BUILD; }

}  // namespace hw3tf
