#include "tensorflow/xla_registry.h"

#include <dlfcn.h>

#include <string_view>

namespace hw3tf {
namespace {

// Where `import tensorflow` has put XLA. Not made global, so asked for by name;
// a program linked statically has the symbols among its own.
void* FindSymbol(const char* name) {
  static void* const library =
      dlopen("libtensorflow_cc.so.2", RTLD_LAZY | RTLD_NOLOAD);
  return dlsym(library ? library : RTLD_DEFAULT, name);
}

template <typename Function>
Function* Find(const char* name) {
  return reinterpret_cast<Function*>(FindSymbol(name));
}

std::string Missing(const char* what) {
  return std::string(what) + " is not in this TensorFlow";
}

// Whether our status is theirs: XLA is asked to read one with a message, and
// one without. Nothing is followed that is not known to be ours.
std::string CheckStatus() {
  // std::optional<absl::string_view>, and that is std's.
  using GetMessage =
      std::optional<std::string_view>(const XlaCustomCallStatus_*);
  const auto get = Find<GetMessage>(
      "_ZN3xla26CustomCallStatusGetMessageEPK20XlaCustomCallStatus_");
  if (!get) return Missing("xla::CustomCallStatusGetMessage");
  XlaCustomCallStatus_ status;
  const bool none = !get(&status).has_value();
  status.message = "longer than what a string holds without an allocation";
  const std::optional<std::string_view> read = get(&status);
  if (none && read && read->data() == status.message->data() &&
      read->size() == status.message->size())
    return "";
  return "the status of a custom call is not what it was in TensorFlow 2.21";
}

}  // namespace

std::string RegisterXlaTarget(const char* name, XlaTarget target) {
#if !defined(__GLIBCXX__) || !_GLIBCXX_USE_CXX11_ABI
  return "hw3tf is not built with the std::string of TensorFlow's libraries";
#endif
  // Members of xla::CustomCallTargetRegistry: `static Registry* Global()` and
  // `void Register(const std::string& symbol, void* address, const std::string&
  // platform)`. The object is the first argument.
  const auto global =
      Find<void*()>("_ZN3xla24CustomCallTargetRegistry6GlobalEv");
  const auto add =
      Find<void(void*, const std::string&, void*, const std::string&)>(
          "_ZN3xla24CustomCallTargetRegistry8RegisterERKNSt7__cxx1112basic_"
          "stringIcSt11char_traitsIcESaIcEEEPvS8_");
  if (!global || !add) return Missing("xla::CustomCallTargetRegistry");
  std::string error = CheckStatus();
  if (error.empty())
    add(global(), name, reinterpret_cast<void*>(target), "Host");
  return error;
}

}  // namespace hw3tf
