// TensorFlow and XLA are compiled without exceptions: one that reached their
// code would end the process. Every function that they call runs in here.

#pragma once

#include <exception>
#include <new>
#include <stdexcept>

#include "tensorflow/tf_c_api.h"

namespace hw3tf {

// Calls `body`; what it throws goes to `report(code, message)`, which does not
// throw. A standard container that is asked for more than any memory holds
// throws std::length_error instead of std::bad_alloc.
template <typename Body, typename Report>
void WithoutExceptions(const Body& body, const Report& report) noexcept {
  constexpr char kNoMemory[] = "out of memory in an op of hw3tf";
  try {
    body();
  } catch (const std::bad_alloc&) {
    report(TF_RESOURCE_EXHAUSTED, kNoMemory);
  } catch (const std::length_error&) {
    report(TF_RESOURCE_EXHAUSTED, kNoMemory);
  } catch (const std::exception& error) {
    report(TF_INTERNAL, error.what());
  } catch (...) {
    report(TF_INTERNAL, "an exception that is no std::exception");
  }
}

}  // namespace hw3tf
