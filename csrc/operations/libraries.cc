#include "operations/libraries.h"

#include <dlfcn.h>

#include "kernels/runtime/build.h"

namespace hw3tf {

std::string FileOf(const void* address) {
  Dl_info info;
  if (!dladdr(address, &info) || !info.dli_fname) return "an unknown file";
  return info.dli_fname;
}

std::string KernelsError() {
  const std::string wanted = HW3TF_KERNELS_BUILD, used = KernelsBuild();
  if (wanted == used) return "";
  return FileOf(reinterpret_cast<const void*>(&KernelsError)) +
         " was built with the kernels " + wanted + ", but " +
         FileOf(reinterpret_cast<const void*>(&KernelsBuild)) +
         ", which this process uses, has the kernels " + used +
         ". Install hw3tf again with `pip install --force-reinstall`, and "
         "start "
         "a new process that imports only one copy of it";
}

}  // namespace hw3tf
