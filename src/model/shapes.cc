// Shapes of known models, for models with random weights.
#include <fmt/format.h>

#include <array>
#include <cmath>

#include "model/architecture.h"

namespace a2sf {
namespace {

struct Shape {
  std::string_view name;
  const char* family;
  int layers, heads, kv_heads, head_dim, embedding, feed_forward, vocabulary;
  std::int64_t context;
  double rope_base;
};

constexpr std::array kShapes = {
    Shape{"smollm2-135m", "llama", 30, 9, 3, 64, 576, 1536, 49152, 8192, 1e5},
    Shape{"smollm2-1.7b", "llama", 24, 32, 32, 64, 2048, 8192, 49152, 8192, 1.3e5},
    Shape{"llama-2-7b", "llama", 32, 32, 32, 128, 4096, 11008, 32000, 4096, 1e4},
    Shape{"llama-3-8b", "llama", 32, 32, 8, 128, 4096, 14336, 128256, 8192, 5e5},
    Shape{"llama-3-70b", "llama", 80, 64, 8, 128, 8192, 28672, 128256, 8192, 5e5},
    Shape{"llama-3.2-1b", "llama", 16, 32, 8, 64, 2048, 8192, 128256, 131072, 5e5},
    Shape{"qwen3-0.6b", "qwen3", 28, 16, 8, 128, 1024, 3072, 151936, 40960, 1e6},
    Shape{"qwen3-8b", "qwen3", 36, 32, 8, 128, 4096, 12288, 151936, 40960, 1e6},
};

std::string shape_names() {
  std::string names;
  for (const Shape& shape : kShapes) names += (names.empty() ? "" : ", ") + std::string(shape.name);
  return names;
}

std::vector<ggml_type> matrix_types() {
  std::vector<ggml_type> types;
  for (int type = 0; type < GGML_TYPE_COUNT; ++type) {
    const auto each = static_cast<ggml_type>(type);
    if (ggml_blck_size(each) > 0 && can_multiply(each)) types.push_back(each);
  }
  return types;
}

std::string type_names() {
  std::string names;
  for (const ggml_type type : matrix_types()) names += (names.empty() ? "" : ", ") + std::string(ggml_type_name(type));
  return names;
}

struct NamedShape {
  Shape shape;
  ggml_type type;
};

Result<NamedShape> parse(const std::string& text) {
  const std::size_t colon = text.find(':');
  const std::string name = text.substr(0, colon), type = colon == std::string::npos ? "" : text.substr(colon + 1);
  const auto shape = std::find_if(kShapes.begin(), kShapes.end(), [&](const Shape& each) { return each.name == name; });
  if (shape == kShapes.end()) {
    return fail(ErrorKind::bad_input,
                fmt::format("shape '{}' is not known; give SHAPE:TYPE with one of {}", name, shape_names()));
  }
  for (const ggml_type each : matrix_types()) {
    if (type == ggml_type_name(each)) return NamedShape{*shape, each};
  }
  return fail(ErrorKind::bad_input, fmt::format("type '{}' of shape '{}' is not known; give {}:TYPE with one of {}",
                                                type, name, name, type_names()));
}

Architecture architecture_of(const Shape& shape, const Family& family) {
  Architecture a{};
  a.name = family.name;
  a.layers = shape.layers;
  a.heads = shape.heads;
  a.kv_heads = shape.kv_heads;
  a.head_dim = shape.head_dim;
  a.embedding = shape.embedding;
  a.feed_forward = shape.feed_forward;
  a.vocabulary = shape.vocabulary;
  a.context = shape.context;
  a.norm_kind = family.norm;
  a.norm_epsilon = 1e-5F;
  a.activation = family.activation;
  a.attention_scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
  a.embedding_scale = 1;
  a.windows.assign(static_cast<std::size_t>(shape.layers), 0);
  Rope rope{family.rope, shape.rope_base, {}, 1};
  for (int i = 0; i < shape.head_dim; i += 2)
    rope.angles.push_back(std::pow(shape.rope_base, -1.0 * i / shape.head_dim));
  a.ropes.push_back(std::move(rope));
  return a;
}

LayerWeights layer_of(const Architecture& a, const Family& family, ggml_type type) {
  const int query = a.heads * a.head_dim, key = a.kv_heads * a.head_dim;
  const auto matrix = [&](int columns, int rows) { return WeightView{type, rows, columns}; };
  const auto norm = [&](int size) { return Norm{a.norm_kind, a.norm_epsilon, {GGML_TYPE_F32, 1, size}, {}}; };
  LayerWeights w;
  w.q = matrix(a.embedding, query);
  w.k = matrix(a.embedding, key);
  w.v = matrix(a.embedding, key);
  w.output = matrix(query, a.embedding);
  w.gate = matrix(a.embedding, a.feed_forward);
  w.up = matrix(a.embedding, a.feed_forward);
  w.down = matrix(a.feed_forward, a.embedding);
  w.attention_norm = norm(a.embedding);
  w.feed_forward_norm = norm(a.embedding);
  if (family.qk_norm) w.q_norm = w.k_norm = norm(a.head_dim);
  return w;
}

// Every tensor counts, the head of its own included.
void count_weights(Weights& weights) {
  for (const auto& [weight, role] : all_weights(weights)) {
    weights.info.parameters += static_cast<std::uint64_t>(weight->rows * weight->columns);
    weights.info.weight_bytes += weight->row_bytes() * static_cast<std::uint64_t>(weight->rows);
  }
}

}  // namespace

Result<Weights> shape_weights(const std::string& text) {
  initialise_ggml();
  const Result<NamedShape> named = parse(text);
  if (!named) return tl::unexpected(named.error());
  const ggml_type type = named->type;
  const Family& family = family_named(named->shape.family);
  const Architecture a = architecture_of(named->shape, family);
  for (const int columns : {a.embedding, a.heads * a.head_dim, a.feed_forward}) {
    if (columns % ggml_blck_size(type) == 0) continue;
    return fail(ErrorKind::bad_input,
                fmt::format("shape '{}' has rows of {} columns, which are no whole blocks of {}: take another type",
                            named->shape.name, columns, ggml_blck_size(type)));
  }
  Weights weights{};
  weights.architecture = a;
  weights.embedding = weights.head = {type, a.vocabulary, a.embedding};
  weights.output_norm = {a.norm_kind, a.norm_epsilon, {GGML_TYPE_F32, 1, a.embedding}, {}};
  weights.layers.assign(static_cast<std::size_t>(a.layers), layer_of(a, family, type));
  weights.info.path = weights.info.name = text;
  weights.info.architecture = a.name;
  describe(a, weights.info);
  count_weights(weights);
  return weights;
}

Result<ModelInfo> inspect_shape(const std::string& shape) {
  return shape_weights(shape).map([](Weights weights) { return std::move(weights.info); });
}

}  // namespace a2sf
