// Kernels run while Python's other threads go on.

#pragma once

#include <pybind11/pybind11.h>

namespace hw3tf {

// Gives the GIL away for its lifetime, unless the interpreter is ending.
//
// A thread that asks for the GIL of an interpreter that ends is ended itself,
// by an unwinding of its stack that C++ takes for an exception: it would end
// the process at the next destructor, as pybind11's gil_scoped_release does. So
// the interpreter waits, in an atexit handler, for kernels that run, and from
// then on kernels keep the GIL. A daemon thread is stopped between two calls,
// in Python.
class WithoutGil {
 public:
  WithoutGil();
  ~WithoutGil();
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_ = nullptr;
};

// Registers the handler; once, when the module is imported.
void WaitForKernelsAtExit();

}  // namespace hw3tf
