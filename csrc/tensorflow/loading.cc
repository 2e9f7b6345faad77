#include "tensorflow/loading.h"

#if defined(__APPLE__)
#include <mach-o/dyld.h>
#else
#include <link.h>
#endif

#include <vector>

#include "operations/libraries.h"

namespace hw3tf {
namespace {

std::vector<std::string> LoadedFiles() {
  std::vector<std::string> files;
#if defined(__APPLE__)
  for (uint32_t i = 0; i < _dyld_image_count(); ++i)
    if (const char* name = _dyld_get_image_name(i)) files.push_back(name);
#else
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* list) {
        static_cast<std::vector<std::string>*>(list)->push_back(
            info->dlpi_name);
        return 0;
      },
      &files);
#endif
  return files;
}

std::string NameOf(const std::string& file) {
  return file.substr(file.find_last_of('/') + 1);
}

// The linker loads a file once, by whatever path; so another path is a copy.
std::string OtherCopyError() {
  const std::string own = FileOf(reinterpret_cast<const void*>(&LoadError));
  for (const std::string& file : LoadedFiles())
    if (file != own && NameOf(file) == NameOf(own))
      return "this process has loaded the TensorFlow ops of another copy of "
             "hw3tf, " +
             file +
             ", and TensorFlow can have them only once. Received: " + own +
             ". Start a new process in which one of the two folders is "
             "imported";
  return "";
}

}  // namespace

const std::string& LoadError() {
  static const std::string error = [] {
    std::string kernels = KernelsError();
    return kernels.empty() ? OtherCopyError() : kernels;
  }();
  return error;
}

}  // namespace hw3tf

// For hw3tf/ops/library.py.
extern "C" __attribute__((visibility("default"))) const char* Hw3tfLoadError() {
  return hw3tf::LoadError().c_str();
}
