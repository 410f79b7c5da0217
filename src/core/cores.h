// How many cores this process may keep busy.
#pragma once

#include <string>

namespace a2sf {

// The cores of the machine that the process may run on (its affinity), or fewer where a control group grants it less
// processor time: a quota of 2.5 cores counts as 2, since threads that wait for each other would be stopped together.
// At least 1. `groups` names the process's control groups and `mount` is where they are mounted; what cannot be read
// there grants everything. Versions 1 and 2 of control groups.
int usable_cores(const std::string& groups = "/proc/self/cgroup", const std::string& mount = "/sys/fs/cgroup");

}  // namespace a2sf
