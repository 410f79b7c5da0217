#include "core/cores.h"

#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

namespace a2sf {
namespace {

namespace fs = std::filesystem;

constexpr double kEverything = std::numeric_limits<double>::infinity();

int cores_by_affinity() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) return CPU_COUNT(&cores);
  return static_cast<int>(std::thread::hardware_concurrency());  // more cores than a cpu_set_t names
}

// Processor time over a period, both in microseconds.
double quota_of(double time, double period) { return time > 0 && period > 0 ? time / period : kEverything; }

// "250000 100000", or "max 100000".
double quota_v2(const fs::path& folder) {
  std::ifstream file(folder / "cpu.max");
  double time = 0, period = 0;
  return file >> time >> period ? quota_of(time, period) : kEverything;
}

// -1: no quota.
double quota_v1(const fs::path& folder) {
  std::ifstream times(folder / "cpu.cfs_quota_us"), periods(folder / "cpu.cfs_period_us");
  double time = 0, period = 0;
  return times >> time && periods >> period ? quota_of(time, period) : kEverything;
}

// The least that the group or one of those around it is granted. In a container the mount is often the group itself,
// while its path is as the host sees it: folders that are not there grant everything.
template <class Quota>
double least_quota(const fs::path& mount, const std::string& group, const Quota& quota) {
  double least = quota(mount);
  fs::path folder = mount;
  for (const fs::path& part : fs::path(group).relative_path()) least = std::min(least, quota(folder /= part));
  return least;
}

bool names_cpu(const std::string& controllers) { return ("," + controllers + ",").find(",cpu,") != std::string::npos; }

// Lines "0::/user.slice/..." (version 2), or "4:cpu,cpuacct:/docker/..." (version 1).
double quota_of_groups(const std::string& groups, const fs::path& mount) {
  double least = kEverything;
  std::ifstream file(groups);
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), group = line.substr(second + 1);
    if (controllers.empty()) {
      least = std::min(least, least_quota(mount, group, quota_v2));
    } else if (names_cpu(controllers)) {
      for (const std::string& folder : {controllers, std::string("cpu")})
        least = std::min(least, least_quota(mount / folder, group, quota_v1));
    }
  }
  return least;
}

}  // namespace

int usable_cores(const std::string& groups, const std::string& mount) {
  const int cores = std::max(1, cores_by_affinity());
  return static_cast<int>(std::clamp(quota_of_groups(groups, mount), 1.0, static_cast<double>(cores)));
}

}  // namespace a2sf
