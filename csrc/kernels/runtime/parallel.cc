#include "kernels/runtime/parallel.h"

#include <pthread.h>
#include <sched.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels/runtime/pause.h"
#include "kernels/runtime/processors.h"
#include "kernels/runtime/test_hooks.h"

namespace hw3tf {
namespace {

// Idle workers watch for work this long before they sleep: an attention layer
// is followed by the next within that time in a small model, and waking a
// sleeping thread takes as long. Longer would take the core from TensorFlow.
constexpr std::chrono::microseconds kSpin{50};

struct Job {
  ParallelBody body = nullptr;
  void* context = nullptr;
  int64_t tasks = 0;
  std::atomic<int64_t> next{0};
  std::atomic<int> threads{0};  // that took a task
  int expected = 0;  // so many wait for each other, with a task in hand

  // For the pool. The first two are changed under its mutex.
  int free_places = 0;
  int next_worker = 1;
  std::atomic<int> inside{0};  // workers, without the caller

  void Run(int worker) {
    const FloatingPointScope scope;
    int64_t task = next.fetch_add(1);
    if (task < tasks) threads.fetch_add(1);
    while (threads.load() < expected) sched_yield();
    for (; task < tasks; task = next.fetch_add(1)) body(context, task, worker);
  }
};

class Pool {
 public:
  // Calls at once share the workers: one that has finished a job joins another.
  // Returns false if the job needs threads that it cannot have: those of
  // `other`, on which it runs if that is set, take one call at a time.
  bool Run(Job* job, int threads, const OtherPool& other) {
    if (other.run) {
      std::unique_lock<std::mutex> owner(other_owner_, std::try_to_lock);
      if (owner.owns_lock()) RunOn(other, job, threads);
      return owner.owns_lock();
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      // Threads that wait for each other must all be free.
      if (test_hooks.meet && !jobs_.empty()) return false;
      jobs_.reserve(jobs_.size() + 1);
      StartWorkers(threads - 1);
      // Several callers would send the workers to each other's processor.
      if (jobs_.empty()) KeepWorkersOffThisProcessor();
      if (test_hooks.meet)
        job->expected =
            1 + std::min(threads - 1, static_cast<int>(workers_.size()));
      job->free_places = threads - 1;
      jobs_.push_back(job);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    job->Run(0);
    // No task is left to take. Workers that have not woken yet find the job
    // gone; those inside finish what they took.
    {
      std::lock_guard<std::mutex> lock(mutex_);
      jobs_.erase(std::find(jobs_.begin(), jobs_.end(), job));
    }
    while (job->inside.load(std::memory_order_acquire) != 0) Pause();
    return true;
  }

 private:
  static void RunOn(const OtherPool& other, Job* job, int threads) {
    struct Team {
      Job* job;
      std::atomic<int> workers{0};
    } team{job};
    const auto body = [](void* context) {
      Team* const its = static_cast<Team*>(context);
      its->job->Run(its->workers.fetch_add(1));
    };
    other.run(body, &team, static_cast<unsigned>(threads), 0);
  }

  void StartWorkers(int count) {
    // Before there is a thread: one that finds no place here ends the process.
    workers_.reserve(static_cast<size_t>(count));
    while (static_cast<int>(workers_.size()) < count) {
      try {
        std::thread worker(&Pool::Work, this);
        workers_.push_back(worker.native_handle());
        worker.detach();
      } catch (const std::system_error&) {
        return;  // fewer threads, same result
      }
      avoided_processor_ = -1;
    }
  }

  // Linux may wake a worker on the processor of the thread that wakes it, even
  // if another one is idle. There the worker waits for the end of that thread's
  // time slice: on 2 processors (kernel 6.18) the second thread came 2.8 ms
  // late in 7 to 90 % of the calls after a pause of 1 to 5 ms; kept away, in 0
  // to 4 %. With many workers there are many idle processors to choose from,
  // and moving them all would take longer than it gains.
  void KeepWorkersOffThisProcessor() {
#if defined(__linux__)
    constexpr size_t kFewWorkers = 7;
    const int processor = sched_getcpu();
    if (processor < 0 || processor == avoided_processor_ ||
        workers_.size() > kFewWorkers)
      return;
    avoided_processor_ = processor;
    cpu_set_t others;
    if (sched_getaffinity(0, sizeof others, &others) != 0) return;
    CPU_CLR(processor, &others);
    if (CPU_COUNT(&others) == 0) return;
    for (const pthread_t worker : workers_)
      pthread_setaffinity_np(worker, sizeof others, &others);
#endif
  }

  void Work() {
    for (;;) {
      int worker = 0;
      uint64_t seen = 0;
      Job* const job = Join(&worker, &seen);
      if (!job) {
        WaitForJob(seen);
        continue;
      }
      job->Run(worker);
      // The last look at the job, which ends with its call.
      job->inside.fetch_sub(1, std::memory_order_release);
    }
  }

  // Takes a place in the job that has the fewest workers, if one has tasks
  // left.
  Job* Join(int* worker, uint64_t* seen) {
    std::lock_guard<std::mutex> lock(mutex_);
    *seen = generation_.load(std::memory_order_relaxed);
    Job* chosen = nullptr;
    for (Job* const job : jobs_)
      if (job->free_places > 0 && job->next.load() < job->tasks &&
          (!chosen || job->inside.load() < chosen->inside.load()))
        chosen = job;
    if (!chosen) return nullptr;
    --chosen->free_places;
    *worker = chosen->next_worker++;
    chosen->inside.fetch_add(1, std::memory_order_relaxed);
    return chosen;
  }

  // Until there is a job that came after `seen`.
  void WaitForJob(uint64_t seen) {
    const auto start = std::chrono::steady_clock::now();
    for (int spins = 1;; ++spins) {
      if (generation_.load(std::memory_order_acquire) != seen) return;
      if (spins % 64 == 0 && std::chrono::steady_clock::now() - start > kSpin) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load() != seen; });
        return;
      }
      Pause();
    }
  }

  std::mutex other_owner_;  // held by the call that uses the other pool
  std::mutex mutex_;        // of all that follows, but the atomic
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_{0};  // jobs so far
  std::vector<Job*> jobs_;               // under way
  std::vector<pthread_t> workers_;
  int avoided_processor_ = -1;
};

// Never destroyed: workers may still look at it while the process exits.
std::atomic<Pool*> the_pool{nullptr};

// The parts of the other pool. A thread may set it while others call.
std::atomic<decltype(OtherPool::run)> other_run{nullptr};
std::atomic<decltype(OtherPool::num_threads)> other_num_threads{nullptr};
thread_local int other_pool_scopes = 0;

// That of this thread's calls; its parts are null if they use our own.
OtherPool ChosenOtherPool() {
  if (other_pool_scopes == 0) return {};
  return {other_run.load(), other_num_threads.load()};
}

// A forked child has no workers, and locks that no thread will release: it
// starts with a new pool.
void ForgetPool() {
  the_pool.store(new Pool);
  other_run.store(nullptr);
  other_num_threads.store(nullptr);
}

Pool* ThePool() {
  static const bool made = [] {
    the_pool.store(new Pool);
    pthread_atfork(nullptr, nullptr, ForgetPool);
    return true;
  }();
  (void)made;
  return the_pool.load();
}

// HW3TF_NUM_THREADS; 0 if absent, -1 if it is not a number from 1 to
// kMaxThreads.
int EnvironmentNumThreads() {
  static const int threads = [] {
    const char* text = std::getenv("HW3TF_NUM_THREADS");
    if (!text || !*text) return 0;
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (*end || value < 1 || value > kMaxThreads) return -1;
    return static_cast<int>(value);
  }();
  return threads;
}

std::atomic<int> set_num_threads{0};

// Adds a job to the counts of tests.
void Count(const Job& job, int wanted_threads, uint32_t paths) {
  const auto add = [](int64_t* count, int64_t number) {
    __atomic_fetch_add(count, number, __ATOMIC_RELAXED);
  };
  for (int i = 0; i < kTestPaths; ++i) {
    if (!(paths >> i & 1)) continue;
    PathCounts* const counts = test_hooks.counts + i;
    add(&counts->calls, 1);
    add(&counts->wanted_threads, wanted_threads > 1);
    add(&counts->on_threads, job.threads > 1);
    add(&counts->tasks, job.tasks);
  }
}

}  // namespace

#if defined(__x86_64__)
FloatingPointScope::FloatingPointScope() : saved_(_mm_getcsr()) {
  // Round to nearest, all exceptions masked, none raised yet.
  constexpr unsigned kDefault = 0x1F80;
  constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
  _mm_setcsr(kDefault | kFlushToZero | kDenormalsAreZero);
}
FloatingPointScope::~FloatingPointScope() {
  _mm_setcsr(static_cast<unsigned>(saved_));
}
#elif defined(__aarch64__)
FloatingPointScope::FloatingPointScope() {
  constexpr uint64_t kFlushToZero = uint64_t{1} << 24;  // all else: to nearest
  __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
  __asm__ volatile("msr fpcr, %0" : : "r"(kFlushToZero));
}
FloatingPointScope::~FloatingPointScope() {
  __asm__ volatile("msr fpcr, %0" : : "r"(saved_));
}
#else
FloatingPointScope::FloatingPointScope() : saved_(0) {}
FloatingPointScope::~FloatingPointScope() = default;
#endif

void ParallelFor(int64_t tasks, int threads, uint32_t paths, ParallelBody body,
                 void* context) {
  Job job;
  job.body = body;
  job.context = context;
  job.tasks = tasks;
  if (threads > tasks) threads = static_cast<int>(tasks);
  if (threads <= 1 || !ThePool()->Run(&job, threads, ChosenOtherPool()))
    job.Run(0);
  if (test_hooks.counts) Count(job, threads, paths);
}

namespace {

struct alignas(64) PhasePart {
  std::atomic<int64_t> next{0};  // the phase in which it is to be taken
  std::atomic<bool> has_thread{false};
};

struct PhaseJob {
  int64_t phases;
  int parts;
  PhaseBody body;
  void* context;
  PhasePart part[kMostParts];
  alignas(64) std::atomic<int64_t> finished{0};  // parts, of all phases

  // As the thread of part `own`.
  void Run(int own, int worker) {
    part[own].has_thread.store(true);
    for (int64_t phase = finished.load() / parts; phase < phases; ++phase) {
      for (int i = 0; i < parts; ++i) {
        const int at = (own + i) % parts;
        if (i > 0 && part[at].has_thread.load()) continue;
        int64_t expected = phase;
        if (!part[at].next.compare_exchange_strong(expected, phase + 1))
          continue;
        body(context, phase, at, worker);
        finished.fetch_add(1);
      }
      Wait((phase + 1) * parts);
    }
  }

  void Wait(int64_t count) const {
    constexpr int kSpins = 4096;
    for (int spins = 0; finished.load() < count; ++spins)
      if (spins < kSpins)
        Pause();
      else
        sched_yield();
  }
};

}  // namespace

void ParallelPhases(int64_t phases, int parts, uint32_t paths, PhaseBody body,
                    void* context) {
  PhaseJob job;
  job.phases = phases;
  job.parts = parts;
  job.body = body;
  job.context = context;
  ParallelFor(parts, parts, paths, [&](int64_t part, int worker) {
    job.Run(static_cast<int>(part), worker);
  });
}

int ResolveNumThreads(int requested) {
  const int set = set_num_threads.load(std::memory_order_relaxed);
  if (set > 0) return set;
  const int environment = EnvironmentNumThreads();
  if (environment > 0) return environment;
  if (requested > 0) return requested < kMaxThreads ? requested : kMaxThreads;
  if (const auto other = ChosenOtherPool().num_threads)
    return std::clamp(other(), 1, kMaxThreads);
  static const int available = AvailableProcessors();
  return available;
}

void SetNumThreads(int threads) { set_num_threads.store(threads); }

void SetOtherPool(const OtherPool& pool) {
  ThePool();  // registers what a fork does
  other_run.store(pool.run);
  other_num_threads.store(pool.num_threads);
}

OtherPoolScope::OtherPoolScope() { ++other_pool_scopes; }
OtherPoolScope::~OtherPoolScope() { --other_pool_scopes; }

std::string NumThreadsError() {
  if (EnvironmentNumThreads() >= 0) return "";
  return "HW3TF_NUM_THREADS must be a number from 1 to " +
         std::to_string(kMaxThreads) +
         ". Received: HW3TF_NUM_THREADS=" + std::getenv("HW3TF_NUM_THREADS");
}

}  // namespace hw3tf
