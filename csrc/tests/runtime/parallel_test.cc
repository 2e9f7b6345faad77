// Tests of the thread pool: every task once, phases in order, calls from many
// threads, another library's threads, a forked child, allocations that fail.

#include "kernels/runtime/parallel.h"

#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <thread>
#include <vector>

#include "tests/check.h"

namespace {

// Allocations until the one that fails; below 0 none will.
int allocations_left = -1;

}  // namespace

void* operator new(size_t size) {
  const bool fails = allocations_left >= 0 && allocations_left-- == 0;
  void* const memory = fails ? nullptr : std::malloc(size);
  if (!memory) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace hw3tf {
namespace {

void EveryTaskRunsOnce(int threads) {
  constexpr int64_t kTasks = 1000;
  std::vector<std::atomic<int>> runs(kTasks);
  std::vector<std::atomic<int>> inside(static_cast<size_t>(threads));
  ParallelFor(kTasks, threads, [&](int64_t task, int worker) {
    CHECK(worker >= 0 && worker < threads, "worker %d", worker);
    CHECK(inside[static_cast<size_t>(worker)]++ == 0,
          "two threads are worker %d", worker);
    ++runs[static_cast<size_t>(task)];
    --inside[static_cast<size_t>(worker)];
  });
  for (const auto& count : runs) CHECK(count == 1, "%d runs", count.load());
}

// A part sees what all parts of the phase before have written.
void PhasesFollowEachOther(int parts) {
  constexpr int64_t kPhases = 300;
  std::vector<int64_t> done(static_cast<size_t>(parts), 0);
  std::vector<int64_t> seen = done;
  std::atomic<int64_t> runs{0};
  ParallelPhases(
      kPhases, parts, /*paths=*/0, [&](int64_t phase, int part, int worker) {
        CHECK(worker >= 0 && worker < parts, "worker %d", worker);
        const auto at = static_cast<size_t>(part);
        CHECK(done[at] == phase, "phase %lld of part %d again",
              static_cast<long long>(phase), part);
        // Written in the phase before, by whoever had that part.
        const size_t next = (at + 1) % seen.size();
        if (phase % 2 == 0)
          seen[next] = phase;
        else
          CHECK(seen[at] == phase - 1, "part %d has not seen it", part);
        done[at] = phase + 1;
        ++runs;
      });
  CHECK(runs == kPhases * parts, "%lld runs",
        static_cast<long long>(runs.load()));
}

void ManyCallersAtOnce() {
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i)
    callers.emplace_back([] {
      for (int call = 0; call < 200; ++call) EveryTaskRunsOnce(3);
      for (int call = 0; call < 5; ++call) PhasesFollowEachOther(3);
    });
  for (std::thread& caller : callers) caller.join();
}

// A call that begins while another one waits with two threads in hand.
void TwoCallsShareThePool() {
  std::atomic<int> waiting{0};
  std::atomic<bool> go_on{false};
  std::thread other([&] {
    ParallelFor(2, 2, [&](int64_t, int) {
      ++waiting;
      while (!go_on) std::this_thread::yield();
    });
  });
  while (waiting < 2) std::this_thread::yield();
  std::atomic<int> inside{0};
  bool met = false;
  ParallelFor(2, 2, [&](int64_t, int worker) {
    ++inside;
    const auto end =
        std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (inside < 2 && std::chrono::steady_clock::now() < end)
      std::this_thread::yield();
    if (worker == 0) met = inside == 2;
  });
  go_on = true;
  other.join();
  CHECK(met, "the second call has one thread");
}

// Runs it in a forked child, which ends with the status that it returns.
template <typename Body>
int StatusInAFork(const Body& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 1;
  CHECK(waitpid(child, &status, 0) == child, "waitpid");
  CHECK(WIFEXITED(status), "the child's status is %d", status);
  return WEXITSTATUS(status);
}

void ChildOfAForkWorks() {
  const int status = StatusInAFork([] {
    EveryTaskRunsOnce(4);
    return 0;
  });
  CHECK(status == 0, "status %d", status);
}

// Whether a new pool met the failure of its `number`-th allocation. It throws
// then, and starts what threads it can at the next call.
bool PoolWithoutMemoryGoesOn(int number) {
  enum { kNoFailure = 0, kFailure = 1 };
  const int status = StatusInAFork([number] {
    bool failed = false;
    allocations_left = number;
    try {
      ParallelFor(100, 4, [](int64_t, int) {});
    } catch (const std::bad_alloc&) {
      failed = true;
    }
    allocations_left = -1;
    EveryTaskRunsOnce(4);
    return failed ? kFailure : kNoFailure;
  });
  CHECK(status == kNoFailure || status == kFailure, "status %d", status);
  return status == kFailure;
}

// The pool's, those of its places for jobs and for threads, and at least one of
// each of 3 threads.
void EveryAllocationMayFail() {
  int failures = 0;
  while (PoolWithoutMemoryGoesOn(failures)) ++failures;
  CHECK(failures >= 6, "%d allocations", failures);
}

std::atomic<int> calls_of_other{0};

// Threads as another library's would be: new ones for each call.
void RunOnOther(void (*body)(void*), void* context, unsigned threads,
                unsigned flags) {
  CHECK(flags == 0, "flags %u", flags);
  ++calls_of_other;
  std::vector<std::thread> team;
  for (unsigned i = 1; i < threads; ++i) team.emplace_back(body, context);
  body(context);
  for (std::thread& thread : team) thread.join();
}

void OtherPoolIsUsedWithinItsScope(bool with_fork) {
  const int own = ResolveNumThreads(0);
  SetOtherPool({&RunOnOther, [] { return 7; }});
  EveryTaskRunsOnce(3);
  CHECK(calls_of_other == 0, "outside its scope");
  CHECK(ResolveNumThreads(0) == own, "threads outside its scope");
  {
    const OtherPoolScope scope;
    EveryTaskRunsOnce(3);
    CHECK(calls_of_other == 1, "%d calls", calls_of_other.load());
    PhasesFollowEachOther(3);
    CHECK(calls_of_other == 2, "%d calls", calls_of_other.load());
    EveryTaskRunsOnce(1);
    CHECK(calls_of_other == 2, "for a call on one thread");
    CHECK(ResolveNumThreads(0) == 7, "%d threads", ResolveNumThreads(0));
    CHECK(ResolveNumThreads(5) == 5, "%d threads", ResolveNumThreads(5));
    std::thread([own] {
      CHECK(ResolveNumThreads(0) == own, "in a thread without a scope");
    }).join();
    const auto in_child = [own] {
      EveryTaskRunsOnce(3);
      return calls_of_other == 2 && ResolveNumThreads(0) == own ? 0 : 1;
    };
    if (with_fork) {
      const int status = StatusInAFork(in_child);
      CHECK(status == 0, "status %d", status);
    }
  }
  SetOtherPool({});
  const OtherPoolScope scope;
  EveryTaskRunsOnce(3);
  CHECK(calls_of_other == 2, "after it was taken back");
}

}  // namespace
}  // namespace hw3tf

// With an argument without the fork: qemu-user stops in the child of a process
// that has threads.
int main(int argc, char**) {
  // First, while a fork has no other threads to lose.
  if (argc == 1) hw3tf::EveryAllocationMayFail();
  for (int threads : {1, 2, 5, 16}) hw3tf::EveryTaskRunsOnce(threads);
  for (int parts : {1, 2, 5, 16}) hw3tf::PhasesFollowEachOther(parts);
  hw3tf::ManyCallersAtOnce();
  hw3tf::TwoCallsShareThePool();
  hw3tf::OtherPoolIsUsedWithinItsScope(/*with_fork=*/argc == 1);
  if (argc == 1) hw3tf::ChildOfAForkWorks();
  std::printf("parallel: ok\n");
  return 0;
}
