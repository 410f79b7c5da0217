// Any bytes as a model file: an error or a model, never a crash.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "model/weights.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const int descriptor = memfd_create("a2sf-fuzz", MFD_CLOEXEC);
  if (descriptor < 0) return 0;
  if (write(descriptor, data, size) == static_cast<ssize_t>(size)) {
    const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
    const a2sf::Result<a2sf::Weights> weights = a2sf::load_weights(path);
    if (!weights && weights.error().message.find(path) == std::string::npos) std::abort();
  }
  close(descriptor);
  return 0;
}
