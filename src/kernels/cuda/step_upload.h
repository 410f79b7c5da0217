// What kernels must know of a step, put together on the host and copied at once.
#pragma once

#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/head.h"
#include "kernels/cuda/logits.h"

namespace a2sf::cuda {

class StepUpload {
 public:
  explicit StepUpload(Device& device) : device_(&device) {}
  // Room for the step; nothing is enqueued.
  Status reserve(const Step& step);
  // Enqueues the copy, and clears the failures.
  cudaError_t enqueue(const Step& step);

  // In the GPU's memory:
  const std::int32_t* tokens() const { return at<std::int32_t>(tokens_); }        // [row]
  const std::int32_t* positions() const { return at<std::int32_t>(positions_); }  // [row]
  const std::int32_t* wanted() const { return at<std::int32_t>(wanted_); }        // rows
  const DeviceSpan* spans() const { return at<DeviceSpan>(spans_); }
  const Pick* picks() const { return at<Pick>(picks_); }                    // the tokens of all queries, in order
  DeviceFailure* failures() const { return at<DeviceFailure>(failures_); }  // [span]
  int pick_count() const { return pick_count_; }

 private:
  template <class T>
  T* at(std::size_t offset) const {
    return reinterpret_cast<T*>(buffer_.data() + offset);
  }
  template <class T>
  T* on_host(std::size_t offset) const {
    return reinterpret_cast<T*>(host_.data() + offset);
  }
  void lay_out(const Step& step);

  Device* device_;
  PinnedBuffer host_;
  OwnedBuffer buffer_;
  std::size_t tokens_ = 0, positions_ = 0, wanted_ = 0, spans_ = 0, picks_ = 0;  // offsets
  std::size_t failures_ = 0, bytes_ = 0;
  int pick_count_ = 0;
};

}  // namespace a2sf::cuda
