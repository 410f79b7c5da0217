#include "kernels/cuda/step_upload.h"

#include <algorithm>

#include "kernels/cuda/cuda_store.h"

namespace a2sf::cuda {

void StepUpload::lay_out(const Step& step) {
  bytes_ = 0;
  const auto take = [this](std::size_t count, std::size_t size) {
    const std::size_t offset = bytes_;
    bytes_ += (count * size + 15) / 16 * 16;
    return offset;
  };
  pick_count_ = 0;
  for (const LogitsQuery& query : step.wanted) pick_count_ += static_cast<int>(query.tokens.size());
  tokens_ = take(step.tokens.size(), sizeof(std::int32_t));
  positions_ = take(step.tokens.size(), sizeof(std::int32_t));
  wanted_ = take(step.wanted.size(), sizeof(std::int32_t));
  spans_ = take(step.spans.size(), sizeof(DeviceSpan));
  failures_ = take(step.spans.size(), sizeof(DeviceFailure));
  picks_ = take(static_cast<std::size_t>(pick_count_), sizeof(Pick));  // the last, since their number changes most
}

Status StepUpload::reserve(const Step& step) {
  lay_out(step);
  if (auto room = host_.reserve(bytes_); !room) return room;
  return cuda::reserve(buffer_, device_->memory(), bytes_);
}

cudaError_t StepUpload::enqueue(const Step& step) {
  std::copy(step.tokens.begin(), step.tokens.end(), on_host<std::int32_t>(tokens_));
  for (std::size_t i = 0; i < step.spans.size(); ++i) {
    const Span& span = step.spans[i];
    const auto& store = static_cast<const CudaStore&>(*span.store);
    const Retention& retention = store.retention();
    on_host<DeviceSpan>(spans_)[i] = {store.view(),     span.first_row,
                                      span.rows,        span.first_position,
                                      retention.block,  span.in_prompt && retention.whole_prompt,
                                      span.prompt_ends, store.shape().type == KvType::f16};
    for (int row = 0; row < span.rows; ++row) {
      on_host<std::int32_t>(positions_)[span.first_row + row] = static_cast<std::int32_t>(span.first_position) + row;
    }
  }
  Pick* pick = on_host<Pick>(picks_);
  for (std::size_t i = 0; i < step.wanted.size(); ++i) {
    on_host<std::int32_t>(wanted_)[i] = step.wanted[i].row;
    for (const std::int32_t token : step.wanted[i].tokens) *pick++ = {static_cast<int>(i), token};
  }
  std::fill_n(on_host<DeviceFailure>(failures_), step.spans.size(), DeviceFailure{});
  return cudaMemcpyAsync(buffer_.data(), host_.data(), bytes_, cudaMemcpyHostToDevice, device_->stream());
}

}  // namespace a2sf::cuda
