// Memory of a device, and a buffer that owns a piece of it.
#pragma once

#include <a2sf/result.h>

#include <cstddef>
#include <utility>

namespace a2sf {

// Allocations are zeroed and aligned to 64 bytes. Thread safe.
class Memory {
 public:
  virtual ~Memory() = default;
  virtual Result<std::byte*> allocate(std::size_t bytes) = 0;
  virtual void release(std::byte* data, std::size_t bytes) = 0;
  virtual void copy(std::byte* to, const std::byte* from, std::size_t bytes) = 0;  // within the device
};

Memory& host_memory();

class OwnedBuffer {
 public:
  static Result<OwnedBuffer> create(Memory& memory, std::size_t bytes);
  OwnedBuffer() = default;
  OwnedBuffer(OwnedBuffer&& other) noexcept { swap(other); }
  OwnedBuffer& operator=(OwnedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~OwnedBuffer() {
    if (data_ != nullptr) memory_->release(data_, bytes_);
  }

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void swap(OwnedBuffer& other) {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  Memory* memory_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace a2sf
