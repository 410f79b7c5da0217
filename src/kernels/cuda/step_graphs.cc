#include "kernels/cuda/step_graphs.h"

namespace a2sf::cuda {

void StepGraphs::clear() {
  for (const auto& [key, graph] : graphs_) cudaGraphExecDestroy(graph);
  graphs_.clear();
}

void StepGraphs::use(const Buffers& buffers) {
  if (buffers == buffers_) return;
  clear();
  buffers_ = buffers;
}

cudaError_t StepGraphs::begin(const StepKind& kind, cudaStream_t recording) {
  key_ = kind.key();
  const auto found = graphs_.find(key_);
  known_ = found == graphs_.end() ? nullptr : found->second;
  return is_known() ? cudaSuccess : cudaStreamBeginCapture(recording, cudaStreamCaptureModeThreadLocal);
}

cudaError_t StepGraphs::launch(cudaStream_t recording, cudaStream_t stream) {
  if (!is_known()) {
    cudaGraph_t recorded = nullptr;
    if (const auto code = cudaStreamEndCapture(recording, &recorded); code != cudaSuccess) return code;
    if (graphs_.size() == kMost) clear();
    auto code = cudaGraphInstantiate(&known_, recorded, 0);
    if (code == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // so that it is not taken for the next call's
      clear();             // the others give back their memory
      code = cudaGraphInstantiate(&known_, recorded, 0);
    }
    cudaGraphDestroy(recorded);
    if (code != cudaSuccess) {
      known_ = nullptr;
      return code;
    }
    graphs_.emplace(key_, known_);
  }
  return cudaGraphLaunch(known_, stream);
}

void StepGraphs::abandon(cudaStream_t recording) {
  if (is_known()) return;
  cudaGraph_t recorded = nullptr;
  if (cudaStreamEndCapture(recording, &recorded) == cudaSuccess && recorded != nullptr) cudaGraphDestroy(recorded);
  cudaGetLastError();
}

}  // namespace a2sf::cuda
