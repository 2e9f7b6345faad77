#include "kernels/test_hooks.h"

namespace hw3tf {

TestHooks test_hooks;

}  // namespace hw3tf
