// A small test library: failures that say where and what, and arrays with
// guarded ends.

#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define CHECK(condition, ...)                                              \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                   \
      std::fprintf(stderr, "\n");                                          \
      std::exit(1);                                                        \
    }                                                                      \
  } while (false)

// Failures of EXPECT, which lets the test go on; main returns whether there are
// any.
inline int& Failures() {
  static int failures = 0;
  return failures;
}

#define EXPECT(condition, ...)                                             \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                   \
      std::fprintf(stderr, "\n");                                          \
      ++Failures();                                                        \
    }                                                                      \
  } while (false)

// Which end of an array lies exactly at a page without access.
enum class Guard { kEnd, kBegin };

// An array between two pages without access: reading or writing one element too
// many stops the test, with or without a sanitizer. A page holds more than most
// arrays; the rest of it, at the other end, and the array itself start as bytes
// 0xFF, NaN in every floating-point type. Reading the rest gives NaN, and
// writing there is detected when the array is destroyed.
template <typename T>
class GuardedArray {
 public:
  explicit GuardedArray(int64_t count, Guard guard = Guard::kEnd)
      : bytes_(static_cast<size_t>(count) * sizeof(T)) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    pages_ = (bytes_ + page - 1) / page * page;
    size_ = pages_ + 2 * page;
    base_ = static_cast<unsigned char*>(
        mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CHECK(base_ != MAP_FAILED, "mmap");
    first_ = base_ + page;
    Allow(PROT_READ | PROT_WRITE);
    if (pages_) std::memset(first_, 0xFF, pages_);
    data_ = guard == Guard::kEnd ? first_ + pages_ - bytes_ : first_;
  }
  ~GuardedArray() {
    for (unsigned char* rest = first_; rest < first_ + pages_; ++rest) {
      if (rest == data_) rest += bytes_;
      if (rest == first_ + pages_) break;
      CHECK(*rest == 0xFF, "written %td bytes from the array", rest - data_);
    }
    munmap(base_, size_);
  }
  GuardedArray(const GuardedArray&) = delete;
  GuardedArray& operator=(const GuardedArray&) = delete;

  // From now on it can only be read.
  void Seal() const { Allow(PROT_READ); }

  T* get() const { return reinterpret_cast<T*>(data_); }
  T& operator[](int64_t i) const { return get()[i]; }
  size_t bytes() const { return bytes_; }

 private:
  // Of no pages qemu-user makes an error, Linux does not.
  void Allow(int access) const {
    CHECK(pages_ == 0 || mprotect(first_, pages_, access) == 0, "mprotect");
  }

  size_t bytes_;
  size_t pages_;
  size_t size_;
  unsigned char* base_;
  unsigned char* first_;  // after the first guard
  unsigned char* data_;
};
