// What programs that run random cases share: options, time, totals. Cases run
// in a child process, so that one that stops it is named, too.

#pragma once

#include <cstdint>

namespace hw3tf {

// Options of the command line, all of them `--name NUMBER`:
//   --seconds  how long; --cases: how many; 2 seconds without either
//   --seed     of the first case, 1 if absent; the next has the next
//   --case     the seed of the only case to run, in this process
// `run_case` makes and checks the case of a seed. A case fails by EXPECT, by
// CHECK or by a signal; its seed is printed, and the next follows. Returns what
// main is to return.
int FuzzMain(int argc, char** argv, const char* what,
             void (*run_case)(uint64_t seed));

}  // namespace hw3tf
