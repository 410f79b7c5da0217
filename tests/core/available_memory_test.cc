#include "core/available_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>

namespace a2sf {
namespace {

namespace fs = std::filesystem;

class AvailableMemory : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }
  std::uint64_t available() const { return available_memory(folder_ / "meminfo", folder_ / "groups", folder_); }

  const fs::path folder_ = fs::temp_directory_path() / ("a2sf-memory-" + std::to_string(getpid()));
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
