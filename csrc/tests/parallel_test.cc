// The thread pool: every task once, calls from many threads, a forked child.

#include "kernels/parallel.h"

#include <sys/wait.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/check.h"

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

void ManyCallersAtOnce() {
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i)
    callers.emplace_back([] {
      for (int call = 0; call < 200; ++call) EveryTaskRunsOnce(3);
    });
  for (std::thread& caller : callers) caller.join();
}

void ChildOfAForkWorks() {
  const pid_t child = fork();
  if (child == 0) {
    EveryTaskRunsOnce(4);
    _exit(0);
  }
  int status = 1;
  CHECK(waitpid(child, &status, 0) == child, "waitpid");
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

}  // namespace
}  // namespace hw3tf

// With an argument without the fork: qemu-user stops in the child of a process
// that has threads.
int main(int argc, char**) {
  for (int threads : {1, 2, 5, 16}) hw3tf::EveryTaskRunsOnce(threads);
  hw3tf::ManyCallersAtOnce();
  if (argc == 1) hw3tf::ChildOfAForkWorks();
  std::printf("parallel: ok\n");
  return 0;
}
