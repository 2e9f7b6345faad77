// Limits on processor time, in folders laid out as Linux lays them out.

#include "kernels/runtime/processors.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/check.h"

namespace hw3tf {
namespace {

namespace fs = std::filesystem;

class Groups {
 public:
  Groups() {
    std::string name =  // mkdtemp puts letters in the place of the X
        (fs::temp_directory_path() / "hw3tf_groups_XXXXXX").string();
    CHECK(mkdtemp(name.data()), "mkdtemp");
    root_ = name;
  }
  ~Groups() { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  void Expect(const std::string& groups, int processors) const {
    Write("groups", groups);
    const int got =
        ControlGroupProcessors((root_ / "groups").string(), root_.string());
    EXPECT(got == processors, "%d processors, not %d: %s", got, processors,
           groups.c_str());
  }

 private:
  fs::path root_;
};

void WithoutALimit() {
  const Groups groups;
  groups.Expect("", 0);
  groups.Expect("0::/\n", 0);
  groups.Expect("nonsense\n::\n0::no slash\n5\n", 0);
  groups.Write("a/cpu.max", "max 100000\n");
  groups.Write("cpu/a/cpu.cfs_quota_us", "-1\n");
  groups.Write("cpu/a/cpu.cfs_period_us", "100000\n");
  groups.Expect("1:cpu:/a\n0::/a\n", 0);
  groups.Write("b/cpu.max", "what\n");
  groups.Write("c/cpu.max", "100000 0\n");
  groups.Write("d/cpu.max", "100000\n");
  for (const char* line : {"0::/b\n", "0::/c\n", "0::/d\n"})
    groups.Expect(line, 0);
}

void Version2() {
  const Groups groups;
  groups.Write("a/cpu.max", "300000 100000\n");
  groups.Write("a/b/cpu.max", "max 100000\n");
  groups.Write("a/c/cpu.max", "150000 100000\n");
  groups.Write("a/d/cpu.max", "1000 100000\n");
  groups.Expect("0::/a\n", 3);
  groups.Expect("0::/a/b\n", 3);  // of the group above
  groups.Expect("0::/a/c\n", 2);  // 1.5
  groups.Expect("0::/a/d\n", 1);  // 0.01
  groups.Expect("0::/a/none/x\n", 3);
  groups.Expect("0::/elsewhere\n", 0);
  groups.Write("cpu.max", "200000 100000\n");
  groups.Expect("0::/host/path\n", 2);  // of which the container sees the root
  groups.Expect("0::/\n", 2);
}

void Version1() {
  const Groups groups;
  groups.Write("cpu/job/cpu.cfs_quota_us", "250000\n");
  groups.Write("cpu/job/cpu.cfs_period_us", "100000\n");
  groups.Expect("3:memory:/job\n2:cpu,cpuacct:/job\n", 3);
  groups.Expect("2:cpuacct,cpu:/job/step\n", 3);
  groups.Expect("2:cpuacct:/job\n", 0);
}

}  // namespace
}  // namespace hw3tf

int main() {
  hw3tf::WithoutALimit();
  hw3tf::Version2();
  hw3tf::Version1();
  CHECK(hw3tf::AvailableProcessors() >= 1, "no processor");
  if (Failures()) return 1;
  std::printf("processors: ok\n");
  return 0;
}
