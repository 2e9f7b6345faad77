#include "kernels/runtime/test_hooks.h"

namespace hw3tf {

TestHooks test_hooks;

}  // namespace hw3tf
