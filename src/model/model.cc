#include <a2sf/model.h>

#include <fmt/format.h>

#include "model/model_parts.h"

namespace a2sf {
namespace {

Result<std::unique_ptr<Backend>> make_backend(const ModelOptions& options) {
  const CpuOptions cpu{.threads = options.threads, .isa = options.isa, .repack = options.repack};
  if (options.device == "cpu") return make_cpu_backend(cpu);
  if (options.device == "fenced") return make_fenced_backend(cpu);
  if (options.device == "reference") return make_reference_backend();
  if (options.device == "cuda") return make_cuda_backend();
  return fail(ErrorKind::unsupported,
              fmt::format("there is no device '{}', but cpu, cuda and reference", options.device));
}

std::size_t bytes_of(const WeightView& weight) { return weight.row_bytes() * static_cast<std::size_t>(weight.rows); }

// The file's pages of a tensor go once the backend has its own form: at no time are there two copies of all weights.
Status load_all(Weights& weights, Backend& backend) {
  for (const auto& [weight, role] : all_weights(weights)) {
    const std::byte* const mapped = weight->data;
    if (Status loaded = backend.load(*weight, role); !loaded) return loaded;
    if (weight->loaded != nullptr || weight->data != mapped) weights.file->forget(mapped, bytes_of(*weight));
  }
  return {};
}

// Refused before it is begun: Linux promises memory that it does not have.
Status check_memory(Weights& weights, std::uint64_t there) {
  std::uint64_t needed = 0;
  for (const auto& [weight, role] : all_weights(weights)) needed += bytes_of(*weight);
  if (needed <= there) return {};
  return fail(ErrorKind::out_of_memory,
              fmt::format("{} needs {:.1f} GiB for its weights; {:.1f} GiB are available", weights.info.name,
                          static_cast<double>(needed) / 0x1p30, static_cast<double>(there) / 0x1p30));
}

Status make_all(Weights& weights, Backend& backend, std::uint64_t seed) {
  std::uint64_t tensor = seed << 32;
  for (const auto& [weight, role] : all_weights(weights)) {
    if (Status made = backend.load_random(*weight, role, ++tensor); !made) return made;
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
  if (Status loaded = load_all(*weights, **backend); !loaded) return tl::unexpected(loaded.error());
  return std::shared_ptr<const Model>(new Model(std::make_unique<Parts>(std::move(*weights), std::move(*backend))));
}

Result<std::shared_ptr<const Model>> Model::random(const std::string& shape, const ModelOptions& options,
                                                   std::uint64_t seed) {
  auto backend = make_backend(options);
  if (!backend) return tl::unexpected(backend.error());
  auto weights = shape_weights(shape);
  if (!weights) return tl::unexpected(weights.error());
  if (Status fits = check_memory(*weights, (*backend)->free_memory()); !fits) return tl::unexpected(fits.error());
  if (Status made = make_all(*weights, **backend, seed); !made) return tl::unexpected(made.error());
  return std::shared_ptr<const Model>(new Model(std::make_unique<Parts>(std::move(*weights), std::move(*backend))));
}

const ModelInfo& Model::info() const { return parts_->weights.info; }
int Model::threads() const { return parts_->backend->threads(); }
const std::string& Model::isa() const { return parts_->backend->isa(); }

const char* version() { return A2SF_VERSION; }

}  // namespace a2sf
