#include "core/memory.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace a2sf {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

bool is_huge(std::size_t bytes) { return bytes >= 2 * kHugePage; }

std::size_t size_of(std::size_t bytes) {
  const std::size_t unit = is_huge(bytes) ? kHugePage : kAlignment;
  return (bytes + unit - 1) / unit * unit;
}

// Zeroed pages that are resident once they are touched, in huge pages where the system grants them: fewer TLB misses.
// nullptr if there is no room.
void* map_huge(std::size_t bytes) {
  void* mapped = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(mapped);
  const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(begin) % kHugePage) % kHugePage;
  if (before > 0) munmap(begin, before);
  munmap(begin + before + bytes, kHugePage - before);
  madvise(begin + before, bytes, MADV_HUGEPAGE);  // only advice, so a refusal does not matter
  return begin + before;
}

class HostMemory final : public Memory {
 public:
  Result<std::byte*> allocate(std::size_t bytes) override {
    if (bytes > SIZE_MAX / 2) return fail(ErrorKind::out_of_memory, "more memory than an address can name");
    const std::size_t rounded = size_of(bytes);
    // Linux promises more than it has: what cannot fit is refused here rather than killed later.
    const auto physical =
        static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    if (rounded > physical) {
      return fail(ErrorKind::out_of_memory,
                  fmt::format("{} MiB were needed, the machine has {} MiB", rounded >> 20, physical >> 20));
    }
    void* data = is_huge(bytes) ? map_huge(rounded) : std::aligned_alloc(kAlignment, rounded);
    if (data == nullptr) {
      return fail(ErrorKind::out_of_memory, fmt::format("not enough memory: {} MiB were needed", (bytes >> 20) + 1));
    }
    if (!is_huge(bytes)) std::memset(data, 0, rounded);
    return static_cast<std::byte*>(data);
  }
  void release(std::byte* data, std::size_t bytes) override {
    if (is_huge(bytes)) {
      munmap(data, size_of(bytes));
    } else {
      std::free(data);
    }
  }
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
