// The kernels of a step of decoded tokens, recorded once and run again in every step of the same kind: tokens,
// positions, slots and who shares the step are data.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <map>

#include "kernels/cuda/attend.h"

namespace a2sf::cuda {

// What the launches of a step follow from, but for where its buffers are.
struct StepKind {
  int spans, wanted;  // sequences of one token each; rows whose logits are asked for
  int most_slots;
  AttendedHeads heads;

  using Key = std::array<int, 6>;
  Key key() const { return {spans, wanted, most_slots, heads.scoring, heads.other, heads.slow}; }
};

class StepGraphs {
 public:
  StepGraphs() = default;
  ~StepGraphs() { clear(); }
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  // Where the kernels of all steps work: what was recorded with other buffers is forgotten.
  using Buffers = std::array<const void*, 7>;
  void use(const Buffers& buffers);

  // From here to launch() or abandon() the kernels of a step are recorded, unless they are known already: then nothing
  // is to be enqueued.
  cudaError_t begin(const StepKind& kind, cudaStream_t recording);
  bool is_known() const { return known_ != nullptr; }
  // Enqueues them all.
  cudaError_t launch(cudaStream_t recording, cudaStream_t stream);
  // After an error: what was recorded is forgotten.
  void abandon(cudaStream_t recording);

 private:
  static constexpr std::size_t kMost = 64;  // a model's steps are of few kinds
  void clear();

  Buffers buffers_{};
  std::map<StepKind::Key, cudaGraphExec_t> graphs_;
  StepKind::Key key_{};
  cudaGraphExec_t known_ = nullptr;
};

}  // namespace a2sf::cuda
