#include "core/cores.h"

#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "core/control_groups.h"

namespace a2sf {
namespace {

namespace fs = std::filesystem;

constexpr double kNoQuota = std::numeric_limits<double>::infinity();

int cores_by_affinity() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) return CPU_COUNT(&cores);
  return static_cast<int>(std::thread::hardware_concurrency());  // more cores than a cpu_set_t names
}

// Processor time over a period, both in microseconds.
double quota_of(double time, double period) { return time > 0 && period > 0 ? time / period : kNoQuota; }

// "250000 100000", or "max 100000".
double quota_v2(const fs::path& folder) {
  std::ifstream file(folder / "cpu.max");
  double time = 0, period = 0;
  return file >> time >> period ? quota_of(time, period) : kNoQuota;
}

// -1: no quota.
double quota_v1(const fs::path& folder) {
  std::ifstream times(folder / "cpu.cfs_quota_us"), periods(folder / "cpu.cfs_period_us");
  double time = 0, period = 0;
  return times >> time && periods >> period ? quota_of(time, period) : kNoQuota;
}

bool names_cpu(const std::string& controllers) { return ("," + controllers + ",").find(",cpu,") != std::string::npos; }

// The least that a group or one of those around it is granted: folders that are not there grant everything.
double quota_of_groups(const std::string& groups, const fs::path& mount) {
  double least = kNoQuota;
  for (const ControlGroup& group : control_groups(groups)) {
    if (group.controllers.empty()) {
      for (const fs::path& folder : folders_of(group, mount)) least = std::min(least, quota_v2(folder));
    } else if (names_cpu(group.controllers)) {
      for (const std::string& mounted : {group.controllers, std::string("cpu")}) {
        for (const fs::path& folder : folders_of(group, mount / mounted)) least = std::min(least, quota_v1(folder));
      }
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
