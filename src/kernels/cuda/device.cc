#include "kernels/cuda/device.h"

#include <fmt/format.h>

#include <algorithm>

namespace a2sf::cuda {
namespace {

constexpr int kLeastMajor = 8;  // compute capability: Ampere

std::string version_of(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

Error no_device(cudaError_t code) {
  if (code == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (driver == 0) return {ErrorKind::unsupported, "this machine has no NVIDIA driver: use --device cpu"};
    return {ErrorKind::unsupported, fmt::format("the NVIDIA driver is too old: it has CUDA {}, {} is needed",
                                                version_of(driver), version_of(CUDART_VERSION))};
  }
  if (code == cudaSuccess || code == cudaErrorNoDevice)
    return {ErrorKind::unsupported, "no NVIDIA GPU is to be seen: use --device cpu (CUDA_VISIBLE_DEVICES hides GPUs)"};
  return {ErrorKind::unsupported, fmt::format("the GPU cannot be used: {}", cudaGetErrorString(code))};
}

}  // namespace

Status checked(cudaError_t code, const std::string& doing) {
  if (code == cudaSuccess) return {};
  cudaGetLastError();  // so that it is not taken for the next call's
  if (code == cudaErrorMemoryAllocation)
    return fail(ErrorKind::out_of_memory, fmt::format("not enough memory for {}", doing));
  return fail(ErrorKind::unsupported,
              fmt::format("the GPU failed in {}: {}; the model must be loaded again, by another "
                          "process if that fails too",
                          doing, cudaGetErrorString(code)));
}

Result<std::byte*> DeviceMemory::allocate(std::size_t bytes) {
  void* data = nullptr;
  if (const cudaError_t code = cudaMalloc(&data, std::max<std::size_t>(bytes, 1)); code != cudaSuccess) {
    std::size_t free = 0, total = 0;
    const Status failed = checked(code, "an allocation");
    if (code != cudaErrorMemoryAllocation || cudaMemGetInfo(&free, &total) != cudaSuccess)
      return tl::unexpected(failed.error());
    return fail(ErrorKind::out_of_memory, fmt::format("not enough memory of the GPU: {} MiB were needed, {} of {} MiB "
                                                      "are free",
                                                      (bytes >> 20) + 1, free >> 20, total >> 20));
  }
  if (auto cleared = checked(cudaMemset(data, 0, bytes), "clearing memory"); !cleared) {
    cudaFree(data);
    return tl::unexpected(cleared.error());
  }
  return static_cast<std::byte*>(data);
}

void DeviceMemory::release(std::byte* data, std::size_t) { cudaFree(data); }

void DeviceMemory::copy(std::byte* to, const std::byte* from, std::size_t bytes) {
  cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToDevice);
}

std::size_t DeviceMemory::free_bytes() const {
  std::size_t free = 0, total = 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? free : 0;
}

Result<std::unique_ptr<Device>> Device::open() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess || count == 0) return tl::unexpected(no_device(code));
  cudaDeviceProp properties{};
  if (auto asked = checked(cudaGetDeviceProperties(&properties, 0), "asking for its properties"); !asked)
    return tl::unexpected(asked.error());
  if (properties.major < kLeastMajor) {
    return fail(ErrorKind::unsupported, fmt::format("{} has compute capability {}.{}; {}.0 is the least",
                                                    properties.name, properties.major, properties.minor, kLeastMajor));
  }
  std::unique_ptr<Device> device(new Device);
  device->architecture_ = fmt::format("sm_{}{}", properties.major, properties.minor);
  device->queue_.multiprocessors = properties.multiProcessorCount;
  Queue& queue = device->queue_;
  // What is recorded must not meet what other threads do in streams that wait for each other.
  for (const cudaError_t made :
       {cudaStreamCreate(&queue.stream), cudaStreamCreateWithFlags(&queue.recording, cudaStreamNonBlocking),
        cudaStreamCreateWithFlags(&queue.aside, cudaStreamNonBlocking),
        cudaEventCreateWithFlags(&queue.forked, cudaEventDisableTiming),
        cudaEventCreateWithFlags(&queue.joined, cudaEventDisableTiming)}) {
    if (auto good = checked(made, "making a stream"); !good) return tl::unexpected(good.error());
  }
  return device;
}

Device::~Device() {
  if (queue_.forked != nullptr) cudaEventDestroy(queue_.forked);
  if (queue_.joined != nullptr) cudaEventDestroy(queue_.joined);
  if (queue_.aside != nullptr) cudaStreamDestroy(queue_.aside);
  if (queue_.recording != nullptr) cudaStreamDestroy(queue_.recording);
  if (queue_.stream != nullptr) cudaStreamDestroy(queue_.stream);
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

Status PinnedBuffer::reserve(std::size_t bytes) {
  if (bytes <= bytes_) return {};
  void* data = nullptr;
  if (auto made = checked(cudaMallocHost(&data, bytes), "an allocation of host memory"); !made) return made;
  if (data_ != nullptr) cudaFreeHost(data_);
  data_ = static_cast<std::byte*>(data);
  bytes_ = bytes;
  return {};
}

Status reserve(OwnedBuffer& buffer, DeviceMemory& memory, std::size_t bytes) {
  if (bytes <= buffer.bytes()) return {};
  auto larger = OwnedBuffer::create(memory, bytes);
  if (!larger) return tl::unexpected(larger.error());
  buffer = std::move(*larger);
  return {};
}

}  // namespace a2sf::cuda
