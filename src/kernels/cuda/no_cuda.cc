// Stands for the folder in a build without CUDA.
#include "kernels/backend.h"

namespace a2sf {

Result<std::unique_ptr<Backend>> make_cuda_backend() {
  return fail(ErrorKind::unsupported, "this build has no CUDA: use --device cpu");
}

}  // namespace a2sf
