#include "kernels/cuda/step_graphs.h"

namespace a2sf::cuda {

void StepGraphs::clear() {
  for (const auto& [kind, graph] : graphs_) cudaGraphExecDestroy(graph);
  graphs_.clear();
}

void StepGraphs::use(const Buffers& buffers) {
  if (buffers == buffers_) return;
  clear();
  buffers_ = buffers;
}

cudaError_t StepGraphs::begin(const StepKind& kind, cudaStream_t stream) {
  kind_ = kind;
  const auto found = graphs_.find(kind);
  known_ = found == graphs_.end() ? nullptr : found->second;
  return is_known() ? cudaSuccess : cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
}

cudaError_t StepGraphs::launch(cudaStream_t stream) {
  if (!is_known()) {
    cudaGraph_t recorded = nullptr;
    if (const auto code = cudaStreamEndCapture(stream, &recorded); code != cudaSuccess) return code;
    const auto code = cudaGraphInstantiate(&known_, recorded, 0);
    cudaGraphDestroy(recorded);
    if (code != cudaSuccess) return code;
    if (graphs_.size() == kMost) clear();
    graphs_.emplace(kind_, known_);
  }
  return cudaGraphLaunch(known_, stream);
}

}  // namespace a2sf::cuda
