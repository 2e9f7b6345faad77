// The one thread pool: the only place of this library that makes threads. Calls
// may run on another library's instead.

#pragma once

#include <cstdint>
#include <string>

#include "kernels/runtime/export.h"

namespace hw3tf {

// While it lives, the thread rounds to nearest, masks all exceptions and counts
// denormal numbers as zero; then it has the caller's state again.
//
// Threads start with the state of the thread that makes them. TensorFlow's
// flush denormals, Python's do not, and a caller may have changed its rounding
// mode. Without one rule the bits would depend on the thread that runs a task.
// And the far tail of a softmax is denormal, at 100 cycles each.
class FloatingPointScope {
 public:
  FloatingPointScope();
  ~FloatingPointScope();
  FloatingPointScope(const FloatingPointScope&) = delete;
  FloatingPointScope& operator=(const FloatingPointScope&) = delete;

 private:
  uint64_t saved_;
};

// Runs body(context, task, worker) for every task in [0, tasks) on at most
// `threads` threads, the caller's among them, and returns when all are done.
// Tasks are taken in ascending order; `worker` is in [0, threads) and belongs
// to one thread for the length of the call, so it may index scratch memory.
//
// `body` runs in a FloatingPointScope on every thread.
//
// Calls at once, as TensorFlow runs ops that do not depend on each other, share
// the pool: a call that finds all threads busy begins on the calling thread,
// and gets others when they have finished elsewhere. The threads of another
// library run one call at a time, others meanwhile their own calling thread.
// `body` must not throw and must not call ParallelFor.
//
// `paths`, of TestPath, are for the counts of tests.
using ParallelBody = void (*)(void* context, int64_t task, int worker);
HW3TF_EXPORT void ParallelFor(int64_t tasks, int threads, uint32_t paths,
                              ParallelBody body, void* context);

// The same for a lambda of (task, worker).
template <typename Body>
void ParallelFor(int64_t tasks, int threads, uint32_t paths, const Body& body) {
  ParallelFor(
      tasks, threads, paths,
      [](void* context, int64_t task, int worker) {
        (*static_cast<const Body*>(context))(task, worker);
      },
      const_cast<Body*>(&body));
}

template <typename Body>
void ParallelFor(int64_t tasks, int threads, const Body& body) {
  ParallelFor(tasks, threads, /*paths=*/0, body);
}

// Runs body(context, phase, part, worker) for every part of every phase, a
// phase when all parts of the one before are done: a barrier that costs about
// 100 ns instead of the 2 us of a ParallelFor. A part is done by the same
// thread in each phase, so that its data stay in that core's cache, as soon as
// that thread is there; until then by another one, so that nobody waits for a
// thread that the pool does not have. `parts` is at most kMostParts.
constexpr int kMostParts = 64;
using PhaseBody = void (*)(void* context, int64_t phase, int part, int worker);
HW3TF_EXPORT void ParallelPhases(int64_t phases, int parts, uint32_t paths,
                                 PhaseBody body, void* context);

// The same for a lambda of (phase, part, worker).
template <typename Body>
void ParallelPhases(int64_t phases, int parts, uint32_t paths,
                    const Body& body) {
  ParallelPhases(
      phases, parts, paths,
      [](void* context, int64_t phase, int part, int worker) {
        (*static_cast<const Body*>(context))(phase, part, worker);
      },
      const_cast<Body*>(&body));
}

// The number of threads a call gets, in this order: SetNumThreads, the
// environment's HW3TF_NUM_THREADS, `requested` (TensorFlow's
// intra_op_parallelism_threads; 0 = none), the other pool of an OtherPoolScope,
// AvailableProcessors when it was first asked.
HW3TF_EXPORT int ResolveNumThreads(int requested);

// 0 undoes an earlier setting.
HW3TF_EXPORT void SetNumThreads(int threads);

constexpr int kMaxThreads = 1024;

// The threads of another library: PyTorch has those of OpenMP. After each call
// of that library they watch for work for milliseconds, on the processors that
// this pool's threads would need.
struct OtherPool {
  // Runs body(context) once on each of at most `threads` threads, the caller's
  // among them, and returns when all have returned: GOMP_parallel, with no
  // `flags`.
  void (*run)(void (*body)(void*), void* context, unsigned threads,
              unsigned flags) = nullptr;
  // How many threads its calls are to have: omp_get_max_threads.
  int (*num_threads)() = nullptr;
};

// Sets the other pool; one without functions removes it. A forked child has no
// other pool: the threads of OpenMP do not survive a fork, and a call would
// wait for them for ever.
HW3TF_EXPORT void SetOtherPool(const OtherPool& pool);

// While it lives, calls of this thread run on the other pool, if one was set,
// and ResolveNumThreads asks that pool instead of AvailableProcessors.
class HW3TF_EXPORT OtherPoolScope {
 public:
  OtherPoolScope();
  ~OtherPoolScope();
  OtherPoolScope(const OtherPoolScope&) = delete;
  OtherPoolScope& operator=(const OtherPoolScope&) = delete;
};

// Empty, or an error about HW3TF_NUM_THREADS.
std::string NumThreadsError();

}  // namespace hw3tf
