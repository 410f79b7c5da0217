#include "core/memory.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace a2sf {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

class HostMemory final : public Memory {
 public:
  Result<std::byte*> allocate(std::size_t bytes) override {
    const bool huge = bytes >= 2 * kHugePage;
    const std::size_t alignment = huge ? kHugePage : kAlignment;
    if (bytes > SIZE_MAX - alignment) return fail(ErrorKind::out_of_memory, "more memory than an address can name");
    const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    // Linux promises more than it has: what cannot fit is refused here rather than killed later.
    const auto physical =
        static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    if (rounded > physical) {
      return fail(ErrorKind::out_of_memory,
                  fmt::format("{} MiB were needed, the machine has {} MiB", rounded >> 20, physical >> 20));
    }
    void* data = std::aligned_alloc(alignment, rounded);
    if (data == nullptr) {
      return fail(ErrorKind::out_of_memory, fmt::format("not enough memory: {} MiB were needed", (bytes >> 20) + 1));
    }
    // Fewer TLB misses while attention walks the cache; only advice, so a refusal does not matter.
    if (huge) madvise(data, rounded, MADV_HUGEPAGE);
    std::memset(data, 0, rounded);
    return static_cast<std::byte*>(data);
  }
  void release(std::byte* data, std::size_t) override { std::free(data); }
  void copy(std::byte* to, const std::byte* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
};

}  // namespace

Memory& host_memory() {
  static auto& memory = *new HostMemory;  // never destroyed: a model in a static variable may be released later
  return memory;
}

Result<OwnedBuffer> OwnedBuffer::create(Memory& memory, std::size_t bytes) {
  auto data = memory.allocate(bytes);
  if (!data) return tl::unexpected(data.error());
  OwnedBuffer buffer;
  buffer.memory_ = &memory;
  buffer.data_ = *data;
  buffer.bytes_ = bytes;
  return buffer;
}

}  // namespace a2sf
