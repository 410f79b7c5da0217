#include "core/cores.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "support/folder.h"
#include "support/one_core.h"

namespace a2sf {
namespace {

// Control groups as files in a folder.
class Cores : public test::InAFolder {
 protected:
  int usable() const { return usable_cores(folder_ / "groups", folder_); }
};

TEST_F(Cores, WithoutGroupsThoseThatTheProcessMayRunOn) {
  const int all = usable();
  {
    const test::OneCore one;
    EXPECT_EQ(all, one.cores_before());
    EXPECT_EQ(usable(), 1);
  }
  EXPECT_EQ(usable(), all);
}

TEST_F(Cores, AQuotaOfTheGroupOrOfOneAroundItBoundsThem) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "one core cannot become fewer";
  write("groups", "0::/outer/inner\n");
  write("outer/inner/cpu.max", "max 100000\n");
  const int unbounded = usable();
  EXPECT_GT(unbounded, 1);
  write("outer/cpu.max", "190000 100000\n");
  EXPECT_EQ(usable(), 1);
  write("outer/cpu.max", "90000000 100000\n");
  EXPECT_EQ(usable(), unbounded);
}

TEST_F(Cores, VersionOneOfControlGroupsCountsToo) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "one core cannot become fewer";
  write("groups", "9:memory:/box\n4:cpu,cpuacct:/box\n");
  write("cpu,cpuacct/box/cpu.cfs_period_us", "100000\n");
  write("cpu,cpuacct/box/cpu.cfs_quota_us", "-1\n");
  EXPECT_GT(usable(), 1);
  write("cpu,cpuacct/box/cpu.cfs_quota_us", "50000\n");
  EXPECT_EQ(usable(), 1);  // never fewer than one
}

TEST_F(Cores, AGroupThatIsNotMountedGrantsEverything) {
  write("groups", "nonsense\n0::/not/here\n");
  EXPECT_EQ(usable(), usable_cores(folder_ / "missing", folder_));
}

}  // namespace
}  // namespace a2sf
