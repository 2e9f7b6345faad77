// Threads and instruction sets.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "kernels/runtime/dispatch.h"
#include "kernels/runtime/parallel.h"

namespace py = pybind11;

namespace hw3tf {
namespace {

void CheckedSetNumThreads(int threads) {
  if (threads < 0 || threads > kMaxThreads)
    throw py::value_error("`threads` must be 0 (the default) to " +
                          std::to_string(kMaxThreads) +
                          ". Received: threads=" + std::to_string(threads));
  SetNumThreads(threads);
}

std::vector<std::string> Names(bool supported_only) {
  std::vector<std::string> names;
  for (const InstructionSet& set : CompiledInstructionSets())
    if (set.supported || !supported_only) names.emplace_back(set.name);
  return names;
}

}  // namespace

void RegisterRuntime(py::module_& m) {
  m.def(
      "num_threads",
      [] {
        const OtherPoolScope pool;
        return ResolveNumThreads(0);
      },
      "Threads that a large call uses: set_num_threads, else the\n"
      "environment's HW3TF_NUM_THREADS, else those of PyTorch where its front\n"
      "is loaded, else the available processors.");
  m.def("set_num_threads", &CheckedSetNumThreads, py::arg("threads"),
        "Sets the threads of later calls; 0 restores the default. Results do\n"
        "not depend on it. Raises ValueError outside 0..1024.");
  m.def(
      "use_openmp",
      [](uintptr_t run, uintptr_t num_threads) {
        OtherPool pool;
        pool.run = reinterpret_cast<decltype(pool.run)>(run);
        pool.num_threads =
            reinterpret_cast<decltype(pool.num_threads)>(num_threads);
        SetOtherPool(pool);
      },
      py::arg("run"), py::arg("num_threads"),
      "Later calls of this module run on the threads of OpenMP. Takes the\n"
      "addresses of GOMP_parallel and omp_get_max_threads, or 0 and 0 for our\n"
      "own threads.");
  m.def(
      "instruction_set", [] { return ChosenInstructionSet().name; },
      "The instruction set in use: 'base', 'avx2', 'avx512' or\n"
      "'avx512_vnni'. The environment's HW3TF_ISA, read once, forces one.");
  m.def(
      "compiled_instruction_sets", [] { return Names(false); },
      "Instruction sets compiled into the library, narrowest first.");
  m.def(
      "supported_instruction_sets", [] { return Names(true); },
      "Those of them that this machine can run.");
}

}  // namespace hw3tf
