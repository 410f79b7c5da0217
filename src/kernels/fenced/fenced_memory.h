// Memory that nobody can read or write but while it is open: a stray access ends the process.
#pragma once

#include <map>
#include <mutex>

#include "core/memory.h"

namespace a2sf {

// Thread safe.
class FencedMemory final : public Memory {
 public:
  ~FencedMemory() override;
  Result<std::byte*> allocate(std::size_t bytes) override;
  void release(std::byte* data, std::size_t bytes) override;
  void copy(std::byte* to, const std::byte* from, std::size_t bytes) override;  // while it is open

  void open();
  void close();

 private:
  void protect(int protection) const;

  std::mutex mutex_;
  std::map<std::byte*, std::size_t> pieces_;  // whole pages
  int opened_ = 0;
};

// Open as long as it lives.
class OpenFence {
 public:
  explicit OpenFence(FencedMemory& memory) : memory_(memory) { memory_.open(); }
  ~OpenFence() { memory_.close(); }
  OpenFence(const OpenFence&) = delete;
  OpenFence& operator=(const OpenFence&) = delete;

 private:
  FencedMemory& memory_;
};

}  // namespace a2sf
