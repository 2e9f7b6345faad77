// What programs that run random cases share: options, time, totals. Cases run
// in a child process, so that one that stops it is named, too.

#pragma once

#include <cstdint>
#include <random>

#include "kernels/runtime/test_hooks.h"

namespace hw3tf {

class Draw {
 public:
  explicit Draw(uint64_t seed) : engine_(seed) {}

  int64_t Below(int64_t count) {
    return static_cast<int64_t>(engine_() % static_cast<uint64_t>(count));
  }
  bool OneIn(int64_t count) { return Below(count) == 0; }
  // 1 to `most`; small ones are as likely as large ones.
  int64_t Size(int64_t most);
  // The first one, which is "nothing", every other time.
  template <typename Enum>
  Enum Option() {
    if (OneIn(2)) return Enum{};
    return static_cast<Enum>(Below(static_cast<int64_t>(Enum::kCount)));
  }

 private:
  std::mt19937_64 engine_;
};

// While it lives, the kernels have these sizes, and what they do is counted for
// the totals. What judges a case runs without it.
class WithHooks {
 public:
  explicit WithHooks(TestHooks hooks);
  ~WithHooks() { test_hooks = TestHooks{}; }
  WithHooks(const WithHooks&) = delete;
  WithHooks& operator=(const WithHooks&) = delete;
};

// Options of the command line, all of them `--name NUMBER`:
//   --seconds  how long; --cases: how many; 2 seconds without either
//   --seed     of the first case, 1 if absent; the next has the next
//   --case     the seed of the only case to run, in this process
// `run_case` makes and checks the case of a seed. A case fails by EXPECT, by
// CHECK or by a signal; its seed is printed, and the next follows. Then come
// the ways that the cases took, one per line, and the totals. Returns what main
// is to return.
int FuzzMain(int argc, char** argv, const char* what, uint32_t paths,
             void (*run_case)(uint64_t seed));

}  // namespace hw3tf
