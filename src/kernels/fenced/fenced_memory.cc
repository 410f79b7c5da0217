#include "kernels/fenced/fenced_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <fmt/format.h>

#include <cstring>

namespace a2sf {
namespace {

std::size_t whole_pages(std::size_t bytes) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

}  // namespace

FencedMemory::~FencedMemory() {
  for (const auto& [data, bytes] : pieces_) ::munmap(data, bytes);
}

Result<std::byte*> FencedMemory::allocate(std::size_t bytes) {
  const std::scoped_lock lock(mutex_);
  const std::size_t size = whole_pages(std::max<std::size_t>(bytes, 1));
  const int protection = opened_ > 0 ? PROT_READ | PROT_WRITE : PROT_NONE;
  void* const data = ::mmap(nullptr, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED)
    return fail(ErrorKind::out_of_memory, fmt::format("cannot allocate {} bytes of fenced memory", bytes));
  pieces_[static_cast<std::byte*>(data)] = size;
  return static_cast<std::byte*>(data);
}

void FencedMemory::release(std::byte* data, std::size_t) {
  const std::scoped_lock lock(mutex_);
  const auto piece = pieces_.find(data);
  ::munmap(data, piece->second);
  pieces_.erase(piece);
}

void FencedMemory::copy(std::byte* to, const std::byte* from, std::size_t bytes) { std::memcpy(to, from, bytes); }

void FencedMemory::protect(int protection) const {
  for (const auto& [data, bytes] : pieces_) ::mprotect(data, bytes, protection);
}

void FencedMemory::open() {
  const std::scoped_lock lock(mutex_);
  if (opened_++ == 0) protect(PROT_READ | PROT_WRITE);
}

void FencedMemory::close() {
  const std::scoped_lock lock(mutex_);
  if (--opened_ == 0) protect(PROT_NONE);
}

}  // namespace a2sf
