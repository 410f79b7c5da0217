// The Linux control groups of a process, versions 1 and 2.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace a2sf {

struct ControlGroup {
  std::string controllers;  // "cpu,cpuacct"; empty: of version 2
  std::string path;         // as the host sees it
};

// The lines of a file such as /proc/self/cgroup: "0::/user.slice/..." (version 2) or "4:cpu,cpuacct:/docker/..."
// (version 1). Others are left out; none if the file cannot be read.
std::vector<ControlGroup> control_groups(const std::string& file);

// The folders of a group and of those around it, from the mount inwards. In a container the mount is often the group
// itself, so that the others are not there.
std::vector<std::filesystem::path> folders_of(const ControlGroup& group, const std::filesystem::path& mount);

}  // namespace a2sf
