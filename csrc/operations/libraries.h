// Whether the libraries that a process has loaded belong together.

#pragma once

#include <string>

namespace hw3tf {

// The file of the library that has this code or data in it.
std::string FileOf(const void* address);

// "" if the kernel library in use is the one of the build that this file is of,
// or what is wrong. A process loads one library of a name: a second copy of
// the package shares that of the first.
std::string KernelsError();

}  // namespace hw3tf
