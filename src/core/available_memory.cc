#include "core/available_memory.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

#include "core/control_groups.h"

namespace a2sf {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kEverything = std::numeric_limits<std::uint64_t>::max();

// The number of a file of one; "max" and what is not there: no limit.
std::uint64_t number_in(const fs::path& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  return file >> number ? number : kEverything;
}

// The number after a word that begins a line.
std::uint64_t number_after(const fs::path& path, const std::string& name, std::uint64_t otherwise) {
  std::ifstream file(path);
  for (std::string word; file >> word;) {
    std::uint64_t number = 0;
    if (word == name && file >> number) return number;
  }
  return otherwise;
}

std::uint64_t left_in(const fs::path& folder, const char* limit, const char* usage, const char* cached) {
  const std::uint64_t most = number_in(folder / limit), used = number_in(folder / usage);
  if (most == kEverything || used == kEverything) return kEverything;
  const std::uint64_t held = used - std::min(used, number_after(folder / "memory.stat", cached, 0));
  return most - std::min(most, held);
}

std::uint64_t left_in(const fs::path& folder) {
  return std::min(left_in(folder, "memory.max", "memory.current", "file"),
                  left_in(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"));
}

// The least that a group or one of those around it has left.
std::uint64_t left_in_groups(const std::string& groups, const fs::path& mount) {
  std::uint64_t least = kEverything;
  for (const ControlGroup& group : control_groups(groups)) {
    if (!group.controllers.empty() && group.controllers != "memory") continue;
    for (const fs::path& folder : folders_of(group, mount / group.controllers))
      least = std::min(least, left_in(folder));
  }
  return least;
}

}  // namespace

std::uint64_t available_memory(const std::string& system, const std::string& groups, const std::string& mount) {
  const std::uint64_t kib = number_after(system, "MemAvailable:", kEverything);
  return std::min(kib == kEverything ? kib : kib * 1024, left_in_groups(groups, mount));
}

}  // namespace a2sf
