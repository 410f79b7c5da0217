#include <a2sf/model.h>

#include <fmt/format.h>

#include "model/model_parts.h"

namespace a2sf {
namespace {

Result<std::unique_ptr<Backend>> make_backend(const ModelOptions& options) {
  if (options.device == "cpu") return make_cpu_backend(options.threads, options.isa);
  if (options.device == "reference") return make_reference_backend();
  return fail(ErrorKind::unsupported,
              fmt::format("device '{}' is not in this build; it has cpu and reference", options.device));
}

// The file's pages of a matrix go once the backend has its own form: at no time are there two copies of all weights.
Status load_matrices(Weights& weights, Backend& backend) {
  for (WeightView* matrix : matrices(weights)) {
    if (Status loaded = backend.load(*matrix); !loaded) return loaded;
    if (matrix->loaded != nullptr)
      weights.file.forget(matrix->data, matrix->row_bytes() * static_cast<std::size_t>(matrix->rows));
  }
  return {};
}

}  // namespace

Model::Model(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Model::~Model() = default;

Result<std::shared_ptr<const Model>> Model::load(const std::string& path, const ModelOptions& options) {
  auto backend = make_backend(options);
  if (!backend) return tl::unexpected(backend.error());
  auto weights = load_weights(path);
  if (!weights) return tl::unexpected(weights.error());
  if (options.repack) {
    if (Status loaded = load_matrices(*weights, **backend); !loaded) return tl::unexpected(loaded.error());
  }
  return std::shared_ptr<const Model>(new Model(std::make_unique<Parts>(std::move(*weights), std::move(*backend))));
}

const ModelInfo& Model::info() const { return parts_->weights.info; }
int Model::threads() const { return parts_->backend->threads(); }
const std::string& Model::isa() const { return parts_->backend->isa(); }

const char* version() { return A2SF_VERSION; }

}  // namespace a2sf
