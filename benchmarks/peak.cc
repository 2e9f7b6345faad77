// Peak rates of this machine, to judge a kernel by: multiply-adds per
// second from registers alone, and bytes per second read from memory.
//
//     g++ -O2 -pthread peak.cc -o peak
//     ./peak THREADS MILLISECONDS MEBIBYTES [avx2]
//
// With "avx2" it uses nothing wider, where the processor has it. The program
// prints JSON: GFLOP/s in float32 and with the bfloat16 dot product (null where
// the processor has none), GB/s. Every thread is pinned to a processor of its
// own. machine_peak.py compiles and runs it.
//
// The loops are written in assembly, so that no compiler folds, spills or
// reorders them. Independent sums hide the latency of 4 to 5 cycles at two
// instructions per cycle: 12 of 16 registers, 24 of 32. Units that multiply
// matrices (AMX) are not counted.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>
#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

namespace {

// A loop of about `steps` steps; returns the flops it did.
using Loop = double (*)(long steps);

// clang-format off
#define EACH12(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#define EACH24(F) EACH12(F) F(12) F(13) F(14) F(15) F(16) F(17) F(18) F(19) \
                  F(20) F(21) F(22) F(23)
// clang-format on

#if defined(__x86_64__)
// clang-format off
#define LOW "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
            "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#define HIGH "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", \
             "xmm23", "xmm24", "xmm25"
// clang-format on

constexpr float kFactors[4] = {0.5f, 0.5f, 0.5f, 0.5f};
// Pairs of bfloat16, 0.5 each.
constexpr uint32_t kPairs = 0x3f003f00;

// Without FMA a multiplication and an addition, each an instruction: the sums
// take 6 registers, the products another 6.
double LoopSse(long steps) {
#define ZERO(i) "xorps %%xmm" #i ", %%xmm" #i "\n"
#define STEP(sum, product)         \
  "movaps %%xmm15, %%xmm" #product \
  "\n"                             \
  "mulps %%xmm15, %%xmm" #product  \
  "\n"                             \
  "addps %%xmm" #product ", %%xmm" #sum "\n"
  long n = steps;
  asm volatile(EACH12(ZERO) "movups %1, %%xmm15\n"
               "1:\n"
               STEP(0, 6) STEP(1, 7) STEP(2, 8) STEP(3, 9) STEP(4, 10) STEP(5, 11)
               "dec %0\n"
               "jnz 1b\n"
               : "+r"(n)
               : "m"(kFactors)
               : "cc", LOW);
#undef ZERO
#undef STEP
  return 6.0 * 4 * 2 * static_cast<double>(steps);
}

__attribute__((target("avx2,fma"))) double LoopAvx2(long steps) {
#define ZERO(i) "vxorps %%ymm" #i ", %%ymm" #i ", %%ymm" #i "\n"
#define STEP(i) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #i "\n"
  long n = steps;
  asm volatile(EACH12(ZERO) "vbroadcastss %1, %%ymm14\n"
               "vmovaps %%ymm14, %%ymm15\n"
               "1:\n" EACH12(STEP)
               "dec %0\n"
               "jnz 1b\n"
               "vzeroupper\n"
               : "+r"(n)
               : "m"(kFactors[0])
               : "cc", LOW);
#undef ZERO
#undef STEP
  return 12.0 * 8 * 2 * static_cast<double>(steps);
}

__attribute__((target("avx512f"))) double LoopAvx512(long steps) {
#define ZERO(i) "vpxord %%zmm" #i ", %%zmm" #i ", %%zmm" #i "\n"
#define STEP(i) "vfmadd231ps %%zmm24, %%zmm25, %%zmm" #i "\n"
  long n = steps;
  asm volatile(EACH24(ZERO) "vbroadcastss %1, %%zmm24\n"
               "vmovaps %%zmm24, %%zmm25\n"
               "1:\n" EACH24(STEP)
               "dec %0\n"
               "jnz 1b\n"
               "vzeroupper\n"
               : "+r"(n)
               : "m"(kFactors[0])
               : "cc", LOW, HIGH);
#undef STEP
  return 24.0 * 16 * 2 * static_cast<double>(steps);
}

#if !defined(__clang__) && __GNUC__ < 10
#define NO_BFLOAT16
#else
__attribute__((target("avx512f,avx512bf16"))) double LoopBfloat16(long steps) {
#define STEP(i) "vdpbf16ps %%zmm24, %%zmm25, %%zmm" #i "\n"
  long n = steps;
  asm volatile(EACH24(ZERO) "vpbroadcastd %1, %%zmm24\n"
               "vmovdqa64 %%zmm24, %%zmm25\n"
               "1:\n" EACH24(STEP)
               "dec %0\n"
               "jnz 1b\n"
               "vzeroupper\n"
               : "+r"(n)
               : "m"(kPairs)
               : "cc", LOW, HIGH);
#undef ZERO
#undef STEP
  return 24.0 * 32 * 2 * static_cast<double>(steps);
}
#endif

Loop Float32Loop(bool narrow, const char** name) {
  if (__builtin_cpu_supports("avx512f") && !narrow) {
    return *name = "avx512f", LoopAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return *name = "avx2", LoopAvx2;
  }
  return *name = "sse", LoopSse;
}

Loop Bfloat16Loop() {
#ifndef NO_BFLOAT16
  if (__builtin_cpu_supports("avx512bf16")) return LoopBfloat16;
#endif
  return nullptr;
}

#elif defined(__aarch64__)

double LoopNeon(long steps) {
#define ZERO(i) "movi v" #i ".4s, #0\n"
#define STEP(i) "fmla v" #i ".4s, v24.4s, v25.4s\n"
  long n = steps;
  asm volatile(EACH24(ZERO) "fmov v24.4s, #0.5\n"
               "fmov v25.4s, #0.5\n"
               "1:\n" EACH24(STEP)
               "subs %0, %0, #1\n"
               "b.ne 1b\n"
               : "+r"(n)
               :
               : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9",
                 "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18",
                 "v19", "v20", "v21", "v22", "v23", "v24", "v25");
  return 24.0 * 4 * 2 * static_cast<double>(steps);
}

Loop Float32Loop(bool, const char** name) { return *name = "neon", LoopNeon; }
Loop Bfloat16Loop() { return nullptr; }

#else

Loop Float32Loop(bool, const char** name) { return *name = "unknown", nullptr; }
Loop Bfloat16Loop() { return nullptr; }

#endif

typedef uint64_t Words __attribute__((vector_size(64)));

uint64_t Sum(const Words* data, size_t count) {
  Words a = {}, b = {}, c = {}, d = {};
  for (size_t i = 0; i + 4 <= count; i += 4) {
    a += data[i];
    b += data[i + 1];
    c += data[i + 2];
    d += data[i + 3];
  }
  a += b + c + d;
  uint64_t sum = 0;
  for (int i = 0; i < 8; ++i) sum += a[i];
  return sum;
}

double Now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Keeps the calling thread on the `index`-th processor that the process may
// use.
void Pin(int index) {
#ifdef __linux__
  cpu_set_t allowed, one;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  index %= CPU_COUNT(&allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed) && index-- == 0) {
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
      return;
    }
  }
#else
  (void)index;
#endif
}

// Most work per second of `repeats` rounds in which all threads start together:
// `work(thread)` returns what it did, and the slowest thread ends the round.
template <typename Work>
double BestRate(int threads, int repeats, const Work& work) {
  double best = 0;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::atomic<int> ready{0};
    std::vector<double> begin(threads), end(threads), done(threads);
    std::vector<std::thread> pool;
    for (int i = 0; i < threads; ++i) {
      pool.emplace_back([&, i] {
        Pin(i);
        ready.fetch_add(1);
        while (ready.load() < threads) {
        }
        begin[i] = Now();
        done[i] = work(i);
        end[i] = Now();
      });
    }
    for (std::thread& thread : pool) thread.join();
    double first = begin[0], last = end[0], sum = 0;
    for (int i = 0; i < threads; ++i) {
      first = begin[i] < first ? begin[i] : first;
      last = end[i] > last ? end[i] : last;
      sum += done[i];
    }
    if (sum / (last - first) > best) best = sum / (last - first);
  }
  return best * 1e-9;
}

// GFLOP/s of a loop that runs for about `seconds` per round.
double LoopRate(Loop loop, int threads, double seconds) {
  long steps = 1000;
  for (double spent = 0; spent < seconds; steps *= 2) {
    const double start = Now();
    loop(steps);
    spent = 2 * (Now() - start);
  }
  return BestRate(threads, 5, [&](int) { return loop(steps); });
}

double ReadRate(int threads, size_t bytes) {
  const size_t count = bytes / sizeof(Words) / threads;
  std::vector<Words*> data(threads);
  for (Words*& part : data) {
    part = static_cast<Words*>(std::aligned_alloc(64, count * sizeof(Words)));
    if (part == nullptr) return 0;
    for (size_t i = 0; i < count; ++i) part[i] = Words{i};
  }
  static std::atomic<uint64_t> sink{0};
  const double rate = BestRate(threads, 4, [&](int thread) {
    sink.fetch_add(Sum(data[thread], count));
    return static_cast<double>(count * sizeof(Words));
  });
  for (Words* part : data) std::free(part);
  return rate;
}

void Print(const char* name, double rate) {
  if (rate > 0) {
    std::printf("\"%s\": %.2f, ", name, rate);
  } else {
    std::printf("\"%s\": null, ", name);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) return 2;
  const bool narrow = argc == 5;
  if (narrow && std::strcmp(argv[4], "avx2") != 0) return 2;
  const int threads = std::atoi(argv[1]);
  const double seconds = 1e-3 * std::atof(argv[2]);
  const size_t bytes = std::strtoull(argv[3], nullptr, 10) << 20;
  if (threads < 1) return 2;
  const char* name = nullptr;
  const Loop float32 = Float32Loop(narrow, &name);
  const Loop bfloat16 = narrow ? nullptr : Bfloat16Loop();
  std::printf("{");
  Print("float32", float32 ? LoopRate(float32, threads, seconds) : 0);
  Print("bfloat16", bfloat16 ? LoopRate(bfloat16, threads, seconds) : 0);
  Print("bandwidth", ReadRate(threads, bytes));
  std::printf("\"instruction_set\": \"%s\"}\n", name);
}
