// How much memory there is for the asking.
#pragma once

#include <cstdint>
#include <string>

namespace a2sf {

// Bytes that can be touched before something is swapped out or killed: what the system has left, and what the memory
// control groups of this process have left, the caches that they would give up counted as free. A system that does not
// say has no limit. The arguments: the files that say so.
std::uint64_t available_memory(const std::string& system = "/proc/meminfo",
                               const std::string& groups = "/proc/self/cgroup",
                               const std::string& mount = "/sys/fs/cgroup");

}  // namespace a2sf
