// Every device that this machine has: what must hold on one must hold on all.
#pragma once

#include <a2sf/model.h>

#include <ostream>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace a2sf::test {

struct Device {
  std::string name;  // as part of a test's name
  ModelOptions options;

  friend std::ostream& operator<<(std::ostream& out, const Device& device) { return out << device.name; }
};

inline Device reference_device() { return {"reference", {.threads = 1, .device = "reference", .isa = {}}}; }

// The reference, the CPU with each of its instruction sets, and the CPU behind a fence: they run hooks, observers,
// shadows and a cold tier.
inline std::vector<Device> host_devices(int threads = 2) {
  std::vector<Device> devices = {reference_device(), {"fenced", {.threads = threads, .device = "fenced", .isa = {}}}};
  for (const cpu::Isa isa : cpu::supported_isas())
    devices.push_back({name_of(isa), {.threads = threads, .isa = name_of(isa)}});
  return devices;
}

// Those, and the GPU where there is one.
inline std::vector<Device> all_devices(int threads = 2) {
  std::vector<Device> devices = host_devices(threads);
  if (make_cuda_backend()) devices.push_back({"cuda", {.device = "cuda", .isa = {}}});
  return devices;
}

}  // namespace a2sf::test
