#include "tests/fuzz.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <limits>
#include <new>
#include <string>

#include "kernels/runtime/dispatch.h"
#include "tests/check.h"

namespace hw3tf {
namespace {

using Clock = std::chrono::steady_clock;

// CTest's number for a test that could not run here.
constexpr int kSkipped = 77;
// More tell nothing new.
constexpr int64_t kMostFailures = 100;

struct Options {
  int64_t seconds = 0;
  int64_t cases = 0;
  int64_t seed = 1;
  int64_t only = 0;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    int64_t* value = name == "--seconds" ? &options.seconds
                     : name == "--cases" ? &options.cases
                     : name == "--seed"  ? &options.seed
                     : name == "--case"  ? &options.only
                                         : nullptr;
    CHECK(value && i + 1 < argc,
          "usage: [--seconds N] [--cases N] [--seed N] [--case SEED], not %s",
          name.c_str());
    *value = std::atoll(argv[i + 1]);
    CHECK(*value > 0, "%s must be positive", name.c_str());
  }
  if (!options.seconds && !options.cases) options.seconds = 2;
  if (!options.cases) options.cases = std::numeric_limits<int64_t>::max();
  return options;
}

// In the order of TestPath.
constexpr const char* kPathNames[] = {
    "forward",         "decoding",         "split keys",
    "packed forward",  "bfloat16 forward", "backward",
    "shared bias",     "packed backward",  "bfloat16 backward",
    "float64 forward", "float64 backward", "sums over the batch",
    "lines",           "blocks of a line", "rows",
    "chunks of rows",  "RNN rows",         "RNN units",
    "RNN rows back",   "RNN units back"};
static_assert(std::size(kPathNames) == kTestPaths);

// What the kernels counted of the present case.
PathCounts case_counts[kTestPaths];

struct PathTotals {
  std::atomic<int64_t> cases{0};
  std::atomic<int64_t> on_threads{0};  // cases with such a call
  std::atomic<int64_t> cut{0};         // cases with more tasks than calls
  std::atomic<int64_t> tasks{0};
};

// Both processes see it.
struct Progress {
  std::atomic<int64_t> started{0};
  std::atomic<int64_t> failed{0};
  PathTotals paths[kTestPaths];

  void AddCase() {
    for (int i = 0; i < kTestPaths; ++i) {
      const PathCounts& counts = case_counts[i];
      paths[i].cases += counts.calls > 0;
      paths[i].on_threads += counts.on_threads > 0;
      paths[i].cut += counts.tasks > counts.calls;
      paths[i].tasks += counts.tasks;
    }
  }
};

Progress* SharedProgress() {
  void* memory = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED, "mmap");
  return new (memory) Progress;
}

class Fuzzer {
 public:
  Fuzzer(const Options& options, void (*run_case)(uint64_t))
      : options_(options), run_case_(run_case), progress_(SharedProgress()) {
    if (options.seconds)
      end_ = Clock::now() + std::chrono::seconds(options.seconds);
  }

  void Run() {
    while (!Done()) {
      std::fflush(nullptr);
      const pid_t child = fork();
      CHECK(child >= 0, "fork");
      if (child == 0) {
        RunCases();
        std::exit(0);
      }
      int status = 0;
      CHECK(waitpid(child, &status, 0) == child, "waitpid");
      if (status == 0) return;
      ++progress_->failed;
      std::fprintf(
          stderr, "--case %lld: the process ended, %s %d\n",
          static_cast<long long>(Seed(progress_->started - 1)),
          WIFSIGNALED(status) ? "signal" : "status",
          WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
  }

  void PrintPaths(uint32_t paths) const {
    for (int i = 0; i < kTestPaths; ++i) {
      const PathTotals& totals = progress_->paths[i];
      if (!(paths >> i & 1)) continue;
      std::printf(
          "path %s: %lld cases, %lld on threads, %lld cut, %lld tasks\n",
          kPathNames[i], static_cast<long long>(totals.cases),
          static_cast<long long>(totals.on_threads),
          static_cast<long long>(totals.cut),
          static_cast<long long>(totals.tasks));
    }
  }

  int64_t cases() const { return progress_->started; }
  int64_t failed() const { return progress_->failed; }

 private:
  bool Done() const {
    return progress_->started >= options_.cases ||
           progress_->failed >= kMostFailures || Clock::now() >= end_;
  }
  int64_t Seed(int64_t number) const { return options_.seed + number; }

  void RunCases() {
    while (!Done()) {
      const int64_t seed = Seed(progress_->started++);
      const int before = Failures();
      std::memset(case_counts, 0, sizeof case_counts);
      run_case_(static_cast<uint64_t>(seed));
      progress_->AddCase();
      if (Failures() == before) continue;
      ++progress_->failed;
      std::fprintf(stderr, "--case %lld: failed, as above\n",
                   static_cast<long long>(seed));
    }
  }

  const Options options_;
  void (*const run_case_)(uint64_t);
  Progress* const progress_;
  Clock::time_point end_ = Clock::time_point::max();
};

// Whether HW3TF_ISA names something that this machine can run.
bool CanRun(const std::string& wish) {
  for (const InstructionSet& set : CompiledInstructionSets())
    if (wish == set.name) return set.supported;
  return false;
}

}  // namespace

int64_t Draw::Size(int64_t most) {
  const double exponent = static_cast<double>(Below(1 << 20)) / (1 << 20);
  return static_cast<int64_t>(
      std::pow(static_cast<double>(most) + 0.999, exponent));
}

WithHooks::WithHooks(TestHooks hooks) {
  hooks.counts = case_counts;
  test_hooks = hooks;
}

int FuzzMain(int argc, char** argv, const char* what, uint32_t paths,
             void (*run_case)(uint64_t seed)) {
  const char* wish = std::getenv("HW3TF_ISA");
  if (wish && !CanRun(wish)) return kSkipped;
  const Options options = ParseOptions(argc, argv);
  if (options.only) {
    run_case(static_cast<uint64_t>(options.only));
    return Failures() > 0;
  }
  Fuzzer fuzzer(options, run_case);
  fuzzer.Run();
  fuzzer.PrintPaths(paths);
  std::printf("%s: %lld cases from seed %lld on, %lld failed, on %s\n", what,
              static_cast<long long>(fuzzer.cases()),
              static_cast<long long>(options.seed),
              static_cast<long long>(fuzzer.failed()),
              ChosenInstructionSet().name);
  return fuzzer.failed() > 0;
}

}  // namespace hw3tf
