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

}  // namespace

Model::Model(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Model::~Model() = default;

Result<std::shared_ptr<const Model>> Model::load(const std::string& path, const ModelOptions& options) {
  auto backend = make_backend(options);
  if (!backend) return tl::unexpected(backend.error());
  auto weights = load_weights(path);
  if (!weights) return tl::unexpected(weights.error());
  return std::shared_ptr<const Model>(new Model(std::make_unique<Parts>(std::move(*weights), std::move(*backend))));
}

const ModelInfo& Model::info() const { return parts_->weights.info; }
int Model::threads() const { return parts_->backend->threads(); }
const std::string& Model::isa() const { return parts_->backend->isa(); }

const char* version() { return A2SF_VERSION; }

}  // namespace a2sf
