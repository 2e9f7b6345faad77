#include "tensorflow/xla_registry.h"

#include <dlfcn.h>
#if defined(__linux__)
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
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

// What XLA's function returns, std::optional<std::string_view>, and room for
// whatever else it might write there. What it could return in registers would
// leave these bytes as they are.
struct Message {
  std::optional<std::string_view> read;
  char more[256];
};
using GetMessage = Message(const void* status);

// Room for a status that is larger than ours.
struct Status {
  XlaCustomCallStatus_ own;
  char more[256];
};

// Runs `test` in a process of its own, which may crash. Returns whether it was
// true; nullopt if there can be no process.
//
// Neither a fork of the C library nor a signal at its end: nobody else's
// handlers run. So `test` allocates nothing.
std::optional<bool> InAnotherProcess(bool (*test)(void*), void* argument) {
#if defined(__linux__)
  const auto child = static_cast<pid_t>(
      syscall(SYS_clone, 0, nullptr, nullptr, nullptr, nullptr));
  if (child == 0) {
    for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP})
      std::signal(signal, SIG_DFL);
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    _exit(test(argument) ? 0 : 1);
  }
  if (child < 0) return std::nullopt;
  int end = 0;
  pid_t waited;
  do waited = waitpid(child, &end, __WALL);
  while (waited < 0 && errno == EINTR);
  if (waited != child) return std::nullopt;
  return WIFEXITED(end) && WEXITSTATUS(end) == 0;
#else
  (void)test, (void)argument;
  return std::nullopt;
#endif
}

struct Statuses {
  GetMessage* get;
  Status without{}, with{};
};

// XLA reads one with a message, and one without.
bool ReadsOurs(void* argument) {
  const auto* statuses = static_cast<Statuses*>(argument);
  const std::string& ours = *statuses->with.own.message;
  const Message none = statuses->get(&statuses->without);
  const Message read = statuses->get(&statuses->with);
  return !none.read && read.read && read.read->data() == ours.data() &&
         read.read->size() == ours.size();
}

std::string FindStatusError() {
  Statuses statuses;
  statuses.get = Find<GetMessage>(
      "_ZN3xla26CustomCallStatusGetMessageEPK20XlaCustomCallStatus_");
  if (!statuses.get) return Missing("xla::CustomCallStatusGetMessage");
  statuses.with.own.message = "longer than a string without an allocation";
  const std::optional<bool> read = InAnotherProcess(ReadsOurs, &statuses);
  if (!read)
    return "no process could be started to look at the status of a call";
  return *read ? ""
               : "the status of a custom call is not what it was in TensorFlow "
                 "2.16 to 2.21";
}

}  // namespace

const std::string& XlaStatusError() {
  static const std::string error = FindStatusError();
  return error;
}

void SetXlaError(XlaCustomCallStatus_* status, const std::string& message) {
  if (XlaStatusError().empty()) {
    status->message = message;
    return;
  }
  // A call of a saved model, in a program that has not asked before. There is
  // nobody to tell, and the results must not be read.
  std::fprintf(stderr, "hw3tf: %s, and %s\n", message.c_str(),
               XlaStatusError().c_str());
  std::abort();
}

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
  add(global(), name, reinterpret_cast<void*>(target), "Host");
  return "";
}

}  // namespace hw3tf
