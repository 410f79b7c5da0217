// The logits of a step's wanted rows in the GPU's memory, and the way of what is asked of them to the host.
#pragma once

#include "kernels/backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/logits.h"
#include "kernels/cuda/step_upload.h"
#include "kernels/span_failures.h"

namespace a2sf::cuda {

class DeviceLogits {
 public:
  explicit DeviceLogits(Device& device) : device_(&device) {}
  // Room for the step; nothing has changed but that.
  Status reserve(const Step& step, int picks, int vocabulary);

  float* rows() const { return reinterpret_cast<float*>(buffer_.data()); }  // [wanted][vocabulary]
  // Enqueues what each row is, once all logits are there.
  cudaError_t finish(int count, float softcap, const Queue& queue) const;
  // Enqueues the copy of all answers.
  cudaError_t download(const StepUpload& upload);
  // Once that is done: everything that the step asked for. Reports the rows with logits that are not finite.
  cudaError_t deliver(SpanFailures& failures);

 private:
  static constexpr std::size_t kStagedRows = 8;  // that wait for their owner in memory that the GPU writes fast
  bool is_staged() const { return step_->wanted.size() <= kStagedRows; }
  std::size_t row_bytes() const { return static_cast<std::size_t>(vocabulary_) * sizeof(float); }
  RowOfLogits* of_rows() const { return reinterpret_cast<RowOfLogits*>(buffer_.data() + of_rows_); }
  cudaError_t copy_row(std::size_t index, void* to) const;

  Device* device_;
  const Step* step_ = nullptr;
  int picks_ = 0, vocabulary_ = 0;
  OwnedBuffer buffer_;  // rows, then RowOfLogits [wanted], partial sums, then what was picked
  std::size_t of_rows_ = 0, parts_ = 0, picked_ = 0;
  PinnedBuffer answers_;  // RowOfLogits [wanted], what was picked, staged rows
  std::size_t staged_ = 0;
  std::vector<float> row_;
};

}  // namespace a2sf::cuda
