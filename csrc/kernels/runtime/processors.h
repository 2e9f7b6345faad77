// The number of processors that this process may use.

#pragma once

#include <string>

#include "kernels/runtime/export.h"

namespace hw3tf {

// The least of the affinity mask and of the limits on processor time that
// control groups set, rounded up; at least 1.
HW3TF_EXPORT int AvailableProcessors();

// The limit of control groups alone; 0 without a limit. `groups` is the file in
// which Linux lists the groups of the process, /proc/self/cgroup; `mount` is
// the folder with the groups, /sys/fs/cgroup. Both versions of control groups
// are read, each group with those above it.
HW3TF_EXPORT int ControlGroupProcessors(const std::string& groups,
                                        const std::string& mount);

}  // namespace hw3tf
