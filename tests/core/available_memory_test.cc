#include "core/available_memory.h"

#include <gtest/gtest.h>

#include <limits>

#include "support/folder.h"

namespace a2sf {
namespace {

class AvailableMemory : public test::InAFolder {
 protected:
  std::uint64_t available() const { return available_memory(folder_ / "meminfo", folder_ / "groups", folder_); }
};

TEST_F(AvailableMemory, IsWhatTheSystemHasLeft) {
  EXPECT_EQ(available(), std::numeric_limits<std::uint64_t>::max());
  write("meminfo", "MemTotal:  64 kB\nMemFree: 8 kB\nMemAvailable:   32 kB\n");
  EXPECT_EQ(available(), 32U * 1024);
  EXPECT_GT(available_memory(), 0U);
}

TEST_F(AvailableMemory, IsWhatTheGroupsHaveLeftWithTheirCachesGivenUp) {
  write("meminfo", "MemAvailable: 1000 kB\n");
  write("groups", "0::/outer/inner\n");
  write("outer/inner/memory.max", "max\n");
  write("outer/inner/memory.current", "5000\n");
  EXPECT_EQ(available(), 1000U * 1024);
  write("outer/memory.max", "9000\n");
  write("outer/memory.current", "8000\n");
  EXPECT_EQ(available(), 1000U);
  write("outer/memory.stat", "anon 5500\nfile 2500\n");
  EXPECT_EQ(available(), 3500U);
}

TEST_F(AvailableMemory, IsWhatGroupsOfTheFirstVersionHaveLeft) {
  write("groups", "2:cpu:/\n4:memory:/box\n");
  write("memory/box/memory.limit_in_bytes", "9000\n");
  write("memory/box/memory.usage_in_bytes", "9500\n");
  EXPECT_EQ(available(), 0U);
  write("memory/box/memory.stat", "cache 4\ntotal_cache 1500\n");
  EXPECT_EQ(available(), 1000U);
}

}  // namespace
}  // namespace a2sf
