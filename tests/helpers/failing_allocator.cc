// An allocator that fails or throws when a test says so. It is preloaded, and
// replaces the C library's malloc and C++'s operator new. Built by
// kernels/test_faults.py.

#include <link.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
}

namespace {

std::atomic<size_t> least{0};  // smaller allocations are not counted
std::atomic<bool> only_ours{false};
std::atomic<long> calls_left{0};  // the call that makes it 0 fails
std::atomic<long> failed{0};
std::atomic<int> thrown{0};  // by operator new; see NewOrThrow

// Where the code of hw3tf's libraries lies. dladdr() would say, too, but it
// reads all symbols of the library of the caller, and TensorFlow's has several
// 100,000.
struct Range {
  uintptr_t begin, end;
};
Range ours[32];
std::atomic<int> ours_count{0};

int AddIfOurs(dl_phdr_info* library, size_t, void*) {
  const char* slash = std::strrchr(library->dlpi_name, '/');
  const char* name = slash ? slash + 1 : library->dlpi_name;
  if (!std::strstr(name, "hw3tf") && std::strncmp(name, "_core", 5) != 0)
    return 0;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& part = library->dlpi_phdr[i];
    if (part.p_type != PT_LOAD || !(part.p_flags & PF_X)) continue;
    if (ours_count == sizeof ours / sizeof *ours) std::abort();
    const uintptr_t begin = library->dlpi_addr + part.p_vaddr;
    ours[ours_count++] = {begin, begin + part.p_memsz};
  }
  return 0;
}

bool IsOurs(void* caller) {
  const auto address = reinterpret_cast<uintptr_t>(caller);
  for (int i = 0; i < ours_count; ++i)
    if (ours[i].begin <= address && address < ours[i].end) return true;
  return false;
}

bool Fails(size_t size) {
  if (calls_left.load() <= 0 || size < least.load() || only_ours.load())
    return false;
  if (calls_left.fetch_sub(1) != 1) return false;
  ++failed;
  return true;
}

// Whether operator new, called from `caller`, fails: where the test asks for
// calls from hw3tf's own libraries.
bool OursFails(size_t size, void* caller) {
  if (calls_left.load() <= 0 || size < least.load() || !only_ours.load())
    return false;
  if (!IsOurs(caller)) return false;
  if (calls_left.fetch_sub(1) != 1) return false;
  ++failed;
  return true;
}

void* OutOfMemory() {
  errno = ENOMEM;
  return nullptr;
}

void* New(size_t size, size_t alignment, void* caller) {
  if (OursFails(size, caller) || Fails(size)) return nullptr;
  return alignment ? __libc_memalign(alignment, size) : __libc_malloc(size);
}

void* NewOrThrow(size_t size, size_t alignment, void* caller) {
  void* memory = New(size, alignment, caller);
  if (memory) return memory;
  if (thrown == 1) throw std::length_error("planted");
  if (thrown == 2) throw std::runtime_error("planted");
  if (thrown == 3) throw 3;
  throw std::bad_alloc();
}

}  // namespace

// The `call`-th call from now on fails, once; 0: none.
extern "C" void hw3tf_fail(size_t size, long call, int ours) {
  calls_left = 0;
  failed = 0;
  ours_count = 0;
  dl_iterate_phdr(AddIfOurs, nullptr);
  least = size;
  only_ours = ours != 0;
  calls_left = call;
}
// What operator new throws from now on.
extern "C" void hw3tf_throw(int what) { thrown = what; }
// How many have failed since.
extern "C" long hw3tf_failed() {
  calls_left = 0;
  return failed;
}

extern "C" void* malloc(size_t size) {
  return Fails(size) ? OutOfMemory() : __libc_malloc(size);
}
extern "C" void* calloc(size_t count, size_t size) {
  return Fails(count * size) ? OutOfMemory() : __libc_calloc(count, size);
}
extern "C" void* realloc(void* memory, size_t size) {
  return Fails(size) ? OutOfMemory() : __libc_realloc(memory, size);
}
extern "C" void* memalign(size_t alignment, size_t size) {
  return Fails(size) ? OutOfMemory() : __libc_memalign(alignment, size);
}
extern "C" void* aligned_alloc(size_t alignment, size_t size) {
  return memalign(alignment, size);
}
extern "C" int posix_memalign(void** memory, size_t alignment, size_t size) {
  if (Fails(size)) return ENOMEM;
  *memory = __libc_memalign(alignment, size);
  return *memory ? 0 : ENOMEM;
}

#define CALLER __builtin_return_address(0)
#define ALIGNMENT static_cast<size_t>(alignment)

void* operator new(size_t size) { return NewOrThrow(size, 0, CALLER); }
void* operator new[](size_t size) { return NewOrThrow(size, 0, CALLER); }
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return New(size, 0, CALLER);
}
void* operator new[](size_t size, const std::nothrow_t&) noexcept {
  return New(size, 0, CALLER);
}
void* operator new(size_t size, std::align_val_t alignment) {
  return NewOrThrow(size, ALIGNMENT, CALLER);
}
void* operator new[](size_t size, std::align_val_t alignment) {
  return NewOrThrow(size, ALIGNMENT, CALLER);
}
void* operator new(size_t size, std::align_val_t alignment,
                   const std::nothrow_t&) noexcept {
  return New(size, ALIGNMENT, CALLER);
}
void* operator new[](size_t size, std::align_val_t alignment,
                     const std::nothrow_t&) noexcept {
  return New(size, ALIGNMENT, CALLER);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
