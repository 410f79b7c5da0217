#include "core/control_groups.h"

#include <fstream>

namespace a2sf {

namespace fs = std::filesystem;

std::vector<ControlGroup> control_groups(const std::string& path) {
  std::vector<ControlGroup> groups;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    groups.push_back({line.substr(first + 1, second - first - 1), line.substr(second + 1)});
  }
  return groups;
}

std::vector<fs::path> folders_of(const ControlGroup& group, const fs::path& mount) {
  std::vector<fs::path> folders{mount};
  for (const fs::path& part : fs::path(group.path).relative_path()) folders.push_back(folders.back() / part);
  return folders;
}

}  // namespace a2sf
