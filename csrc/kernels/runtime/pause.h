// What a thread does between two looks at what it waits for. No STL: the
// objects of the instruction sets include this file.

#pragma once

namespace hw3tf {

// Leaves the core to its other thread for some dozen cycles.
static inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace hw3tf
