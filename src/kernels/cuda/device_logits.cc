#include "kernels/cuda/device_logits.h"

#include <cstring>

#include "kernels/logits.h"

namespace a2sf::cuda {
namespace {

std::size_t aligned(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

}  // namespace

Status DeviceLogits::reserve(const Step& step, int picks, int vocabulary) {
  step_ = &step;
  picks_ = picks;
  vocabulary_ = vocabulary;
  const std::size_t wanted = step.wanted.size();
  of_rows_ = aligned(wanted * row_bytes());
  parts_ = aligned(of_rows_ + wanted * sizeof(RowOfLogits));
  picked_ = aligned(parts_ + wanted * parts_bytes(vocabulary));
  const std::size_t picked = static_cast<std::size_t>(picks) * sizeof(float);
  if (auto room = cuda::reserve(buffer_, device_->memory(), picked_ + picked); !room) return room;
  row_.resize(static_cast<std::size_t>(vocabulary));
  staged_ = aligned(wanted * sizeof(RowOfLogits) + picked);
  return answers_.reserve(staged_ + (is_staged() ? wanted * row_bytes() : 0));
}

cudaError_t DeviceLogits::finish(int count, float softcap, const Queue& queue) const {
  return finish_logits(rows(), count, vocabulary_, softcap, buffer_.data() + parts_, of_rows(), queue);
}

cudaError_t DeviceLogits::copy_row(std::size_t index, void* to) const {
  return cudaMemcpyAsync(to, buffer_.data() + index * row_bytes(), row_bytes(), cudaMemcpyDeviceToHost,
                         device_->stream());
}

cudaError_t DeviceLogits::download(const StepUpload& upload) {
  const std::size_t of_rows_bytes = step_->wanted.size() * sizeof(RowOfLogits);
  auto code = cudaMemcpyAsync(answers_.data(), of_rows(), of_rows_bytes, cudaMemcpyDeviceToHost, device_->stream());
  if (code == cudaSuccess && picks_ > 0) {
    auto* const picked = reinterpret_cast<float*>(buffer_.data() + picked_);
    code = pick(rows(), vocabulary_, upload.picks(), picks_, picked, device_->stream());
    if (code == cudaSuccess)
      code = cudaMemcpyAsync(answers_.data() + of_rows_bytes, picked, static_cast<std::size_t>(picks_) * sizeof(float),
                             cudaMemcpyDeviceToHost, device_->stream());
  }
  for (std::size_t i = 0; code == cudaSuccess && i < step_->wanted.size(); ++i) {
    const LogitsQuery& query = step_->wanted[i];
    if (query.logits == nullptr && query.largest.empty()) continue;
    if (is_staged()) {
      code = copy_row(i, answers_.data() + staged_ + i * row_bytes());
    } else if (query.logits != nullptr) {
      code = copy_row(i, query.logits);
    }
  }
  return code;
}

cudaError_t DeviceLogits::deliver(SpanFailures& failures) {
  const auto* const of_rows = reinterpret_cast<const RowOfLogits*>(answers_.data());
  const auto* picked = reinterpret_cast<const float*>(of_rows + step_->wanted.size());
  for (std::size_t i = 0; i < step_->wanted.size(); ++i) {
    const LogitsQuery& query = step_->wanted[i];
    for (double& log_probability : query.log_probabilities) log_probability = *picked++ - of_rows[i].log_sum;
    if (of_rows[i].is_finite == 0) failures.report_logits(query.row);
    const auto* staged = reinterpret_cast<const float*>(answers_.data() + staged_ + i * row_bytes());
    if (query.logits != nullptr && is_staged()) std::memcpy(query.logits, staged, row_bytes());
    if (of_rows[i].is_finite == 0 || query.largest.empty()) continue;
    if (!is_staged()) {
      if (const auto code = copy_row(i, row_.data()); code != cudaSuccess) return code;
      if (const auto code = cudaStreamSynchronize(device_->stream()); code != cudaSuccess) return code;
      staged = row_.data();
    }
    answer({.row = query.row, .largest = query.largest}, {staged, static_cast<std::size_t>(vocabulary_)});
  }
  return cudaSuccess;
}

}  // namespace a2sf::cuda
