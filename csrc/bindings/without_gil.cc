#include "bindings/without_gil.h"

#include <pthread.h>

#include <chrono>
#include <thread>

namespace py = pybind11;

namespace hw3tf {
namespace {

// Both change only in a thread that has the GIL.
bool ending = false;
int running = 0;

void WaitForKernels() {
  ending = true;
  while (running > 0) {
    PyThreadState* const state = PyEval_SaveThread();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    PyEval_RestoreThread(state);
  }
}

}  // namespace

WithoutGil::WithoutGil() {
  if (ending) return;
  ++running;
  state_ = PyEval_SaveThread();
}

WithoutGil::~WithoutGil() {
  if (!state_) return;
  PyEval_RestoreThread(state_);
  --running;
}

void WaitForKernelsAtExit() {
  py::module_::import("atexit").attr("register")(
      py::cpp_function(WaitForKernels));
  // The child of a fork has none of the threads that ran kernels.
  pthread_atfork(nullptr, nullptr, [] { running = 0; });
}

}  // namespace hw3tf
