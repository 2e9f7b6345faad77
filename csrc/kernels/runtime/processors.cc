#include "kernels/runtime/processors.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <thread>

namespace hw3tf {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

// The first number of a file, and the second; a file that is not there, or that
// says "max", has none.
struct Numbers {
  explicit Numbers(const std::string& path) {
    std::ifstream file(path);
    if (!(file >> first)) return;
    count = 1;
    if (file >> second) count = 2;
  }
  double first = 0, second = 0;
  int count = 0;
};

double Ratio(double quota, double period) {
  return quota > 0 && period > 0 ? quota / period : kNoLimit;
}

double LimitOf(const std::string& folder) {
  // Version 2: one file with both, "max 100000" without a limit.
  const Numbers both(folder + "/cpu.max");
  // Version 1: a quota of -1 without a limit.
  const Numbers quota(folder + "/cpu.cfs_quota_us");
  const Numbers period(folder + "/cpu.cfs_period_us");
  return std::min(both.count == 2 ? Ratio(both.first, both.second) : kNoLimit,
                  Ratio(quota.first, period.first));
}

// The least of a group and of all above it. In a container the path may be that
// of the host, of which only the end, or nothing, is mounted.
double LeastLimit(const std::string& mount, std::string path) {
  double limit = kNoLimit;
  for (;;) {
    limit = std::min(limit, LimitOf(mount + path));
    if (path.empty()) return limit;
    path.erase(path.find_last_of('/'));
  }
}

}  // namespace

int ControlGroupProcessors(const std::string& groups,
                           const std::string& mount) {
  double limit = kNoLimit;
  std::ifstream file(groups);
  for (std::string line; std::getline(file, line);) {
    // hierarchy:controllers:path, where version 2 names no controllers.
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers =
        "," + line.substr(first + 1, second - first - 1) + ",";
    std::string path = line.substr(second + 1);
    if (path.empty() || path[0] != '/') continue;
    if (path == "/") path.clear();
    if (controllers == ",,")
      limit = std::min(limit, LeastLimit(mount, path));
    else if (controllers.find(",cpu,") != std::string::npos)
      limit = std::min(limit, LeastLimit(mount + "/cpu", path));
  }
  if (limit == kNoLimit) return 0;
  constexpr double kMost = 1 << 20;
  return static_cast<int>(std::ceil(std::min(limit, kMost)));
}

int AvailableProcessors() {
  int processors = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) processors = CPU_COUNT(&set);
  const int limit =
      ControlGroupProcessors("/proc/self/cgroup", "/sys/fs/cgroup");
  if (limit > 0) processors = std::min(processors, limit);
#endif
  return std::max(1, processors);
}

}  // namespace hw3tf
