// The GPU: opening it, its memory, and its errors as values.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "core/memory.h"

namespace a2sf::cuda {

// What a call of the CUDA runtime came to; `doing` says what it was for: "attention of layer 3".
Status checked(cudaError_t code, const std::string& doing);

// Thread safe.
class DeviceMemory final : public Memory {
 public:
  Result<std::byte*> allocate(std::size_t bytes) override;
  void release(std::byte* data, std::size_t bytes) override;
  void copy(std::byte* to, const std::byte* from, std::size_t bytes) override;  // a failure shows in what comes next
  std::size_t free_bytes() const;
};

// Where the kernels of a backend are enqueued, and what their launches must know of the GPU.
struct Queue {
  cudaStream_t stream = nullptr;
  int multiprocessors = 0;
  bool overlaps = true;              // a kernel may begin while the one before it ends (launch.cuh)
  cudaStream_t recording = nullptr;  // in the place of `stream` while a step is recorded
  cudaStream_t aside = nullptr;      // for what may run beside the stream's next kernels, from `forked` to `joined` on
  cudaEvent_t forked = nullptr, joined = nullptr;
};

// The first GPU that the process may see.
class Device {
 public:
  // Fails with one line: no GPU, a driver that is too old, a GPU that is too old.
  static Result<std::unique_ptr<Device>> open();
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const std::string& architecture() const { return architecture_; }  // "sm_90"
  cudaStream_t stream() const { return queue_.stream; }
  const Queue& queue() const { return queue_; }
  DeviceMemory& memory() { return memory_; }

 private:
  Device() = default;
  std::string architecture_;
  Queue queue_;
  DeviceMemory memory_;
};

// Host memory that the GPU reads and writes at its own pace. Contents are lost when it grows.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  Status reserve(std::size_t bytes);
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Grows a buffer, whose contents are lost, to at least so many bytes.
Status reserve(OwnedBuffer& buffer, DeviceMemory& memory, std::size_t bytes);

}  // namespace a2sf::cuda
