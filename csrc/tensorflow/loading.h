// Whether this library may register its ops.

#pragma once

#include <string>

namespace hw3tf {

// "" or why not: it does not belong to the kernel library in use, or the
// process has another copy of it, whose ops would meet these under one name.
// Found out once, when the library is loaded.
const std::string& LoadError();

}  // namespace hw3tf
