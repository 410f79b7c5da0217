#include "model/weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <ggml-cpu.h>

#include <algorithm>
#include <bit>
#include <unordered_set>

#include "model/architecture.h"

namespace a2sf {
namespace {

// Before this, vec_dot of several types silently returns 0.
void initialise_ggml() { [[maybe_unused]] static const bool once = (ggml_cpu_init(), true); }

// Can ggml turn a row into floats and multiply it?
bool can_multiply(ggml_type type) {
  const bool readable = type == GGML_TYPE_F32 || ggml_get_type_traits(type)->to_float != nullptr;
  return readable && ggml_get_type_traits_cpu(type)->vec_dot != nullptr;
}

bool all_finite(const float* values, std::size_t count) {
  std::uint32_t largest = 0;  // without the sign, infinity and NaN are the largest bit patterns
  for (std::size_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffU);
  }
  return largest < 0x7f800000U;
}

// The exponent byte that means NaN, which ggml's conversion takes for a large number.
bool has_nan_exponent(const WeightView& view, std::int64_t row) {
  if (view.type != GGML_TYPE_MXFP4) return false;
  const std::size_t block = ggml_type_size(view.type);
  const std::byte* data = view.row(row);
  for (std::size_t at = 0; at < view.row_bytes(); at += block) {
    if (data[at] == std::byte{0xff}) return true;
  }
  return false;
}

// The row with a weight that is no finite number. Not ggml_validate_row_data: it prints to stderr.
std::optional<std::int64_t> first_bad_row(const WeightView& view) {
  const auto columns = static_cast<std::size_t>(view.columns);
  const ggml_to_float_t to_float = ggml_get_type_traits(view.type)->to_float;
  std::vector<float> buffer(view.type == GGML_TYPE_F32 ? 0 : columns);
  for (std::int64_t row = 0; row < view.rows; ++row) {
    const float* values = reinterpret_cast<const float*>(view.row(row));
    if (view.type != GGML_TYPE_F32) {
      to_float(view.row(row), buffer.data(), view.columns);
      values = buffer.data();
    }
    if (!all_finite(values, columns) || has_nan_exponent(view, row)) return row;
  }
  return std::nullopt;
}

enum class Blocks { check, skip };

// Takes tensors out of a file and keeps the first error, so that a model reads as a list of names and shapes.
class TensorReader {
 public:
  TensorReader(const GgufFile& file, Blocks blocks) : file_(file), blocks_(blocks) {}

  WeightView matrix(const std::string& name, std::int64_t columns, std::int64_t rows) {
    const GgufTensor* tensor = required(name, columns, rows);
    if (tensor == nullptr) return {};
    if (!can_multiply(tensor->type)) {
      refuse(ErrorKind::unsupported,
             fmt::format("tensor '{}' has type {}, which cannot be multiplied", name, ggml_type_name(tensor->type)));
      return {};
    }
    return view(*tensor, columns, rows);
  }

  WeightView vector(const std::string& name, std::int64_t size) {
    const GgufTensor* tensor = required(name, size, 1);
    if (tensor == nullptr) return {};
    if (tensor->type != GGML_TYPE_F32) {
      refuse(ErrorKind::unsupported,
             fmt::format("tensor '{}' has type {}; only f32 is supported", name, ggml_type_name(tensor->type)));
      return {};
    }
    return view(*tensor, size, 1);
  }

  bool has(const std::string& name) const { return file_.find(name) != nullptr; }
  WeightView optional_vector(const std::string& name, std::int64_t size) {
    return has(name) ? vector(name, size) : WeightView{};
  }

  // A tensor that nobody read would change the result in a way this build knows nothing of.
  Status finish() {
    for (const GgufTensor& tensor : file_.tensors()) {
      if (used_.contains(tensor.name) || tensor.name == "rope_freqs.weight") continue;
      refuse(ErrorKind::unsupported, fmt::format("tensor '{}' is not part of a model that is supported", tensor.name));
    }
    if (error_) return tl::unexpected(*error_);
    return {};
  }

  bool failed() const { return error_.has_value(); }

 private:
  const GgufTensor* required(const std::string& name, std::int64_t columns, std::int64_t rows) {
    used_.insert(name);
    const GgufTensor* tensor = file_.find(name);
    if (tensor == nullptr) {
      refuse(ErrorKind::bad_input, fmt::format("tensor '{}' is missing", name));
      return nullptr;
    }
    std::vector<std::int64_t> wanted{columns};
    if (rows != 1) wanted.push_back(rows);
    if (tensor->shape == wanted) return tensor;
    refuse(ErrorKind::bad_input, fmt::format("tensor '{}' has shape {} instead of {}", name,
                                             fmt::join(tensor->shape, "x"), fmt::join(wanted, "x")));
    return nullptr;
  }

  WeightView view(const GgufTensor& tensor, std::int64_t columns, std::int64_t rows) {
    const WeightView result{tensor.type, rows, columns, tensor.data.data()};
    if (blocks_ == Blocks::skip || failed()) return result;
    if (const std::optional<std::int64_t> row = first_bad_row(result)) {
      refuse(ErrorKind::bad_input,
             fmt::format("tensor '{}' is damaged: row {} holds a weight that is no finite number", tensor.name, *row));
    }
    return result;
  }

  void refuse(ErrorKind kind, const std::string& message) {
    if (!error_) error_ = fail_in(file_, kind, message).value();
  }

  const GgufFile& file_;
  Blocks blocks_;
  std::unordered_set<std::string> used_;
  std::optional<Error> error_;
};

LayerWeights read_layer(TensorReader& tensors, const Architecture& a, int layer) {
  const auto name = [layer](const char* part) { return fmt::format("blk.{}.{}", layer, part); };
  const std::int64_t query = std::int64_t{a.heads} * a.head_dim;
  const std::int64_t key = std::int64_t{a.kv_heads} * a.head_dim;
  LayerWeights weights;
  weights.attention_norm = tensors.vector(name("attn_norm.weight"), a.embedding);
  weights.q = tensors.matrix(name("attn_q.weight"), a.embedding, query);
  weights.k = tensors.matrix(name("attn_k.weight"), a.embedding, key);
  weights.v = tensors.matrix(name("attn_v.weight"), a.embedding, key);
  weights.output = tensors.matrix(name("attn_output.weight"), query, a.embedding);
  weights.feed_forward_norm = tensors.vector(name("ffn_norm.weight"), a.embedding);
  weights.gate = tensors.matrix(name("ffn_gate.weight"), a.embedding, a.feed_forward);
  weights.up = tensors.matrix(name("ffn_up.weight"), a.embedding, a.feed_forward);
  weights.down = tensors.matrix(name("ffn_down.weight"), a.feed_forward, a.embedding);
  weights.q_bias = tensors.optional_vector(name("attn_q.bias"), query);
  weights.k_bias = tensors.optional_vector(name("attn_k.bias"), key);
  weights.v_bias = tensors.optional_vector(name("attn_v.bias"), key);
  weights.output_bias = tensors.optional_vector(name("attn_output.bias"), a.embedding);
  return weights;
}

Status read_tensors(Weights& weights, Blocks blocks) {
  const Architecture& a = weights.architecture;
  TensorReader tensors(weights.file, blocks);
  weights.embedding = tensors.matrix("token_embd.weight", a.embedding, a.vocabulary);
  weights.output_norm = tensors.vector("output_norm.weight", a.embedding);
  const bool tied = !tensors.has("output.weight");
  weights.head = tied ? weights.embedding : tensors.matrix("output.weight", a.embedding, a.vocabulary);
  for (int layer = 0; layer < a.layers && !tensors.failed(); ++layer) {
    weights.layers.push_back(read_layer(tensors, a, layer));
  }
  return tensors.finish();
}

TensorInfo describe(const GgufTensor& tensor) {
  return {tensor.name, ggml_type_name(tensor.type), tensor.shape, tensor.data.size()};
}

std::uint64_t element_count(const GgufTensor& tensor) {
  const auto blocks = tensor.data.size() / ggml_type_size(tensor.type);
  return blocks * static_cast<std::uint64_t>(ggml_blck_size(tensor.type));
}

ModelInfo describe(const GgufFile& file, const Architecture& a) {
  ModelInfo info{};
  info.path = file.path();
  info.name = file.string("general.name").value_or("");
  info.architecture = a.name;
  info.layers = a.layers;
  info.heads = a.heads;
  info.kv_heads = a.kv_heads;
  info.head_dim = a.head_dim;
  info.embedding = a.embedding;
  info.feed_forward = a.feed_forward;
  info.vocabulary = a.vocabulary;
  info.context = a.context;
  info.norm_epsilon = static_cast<double>(a.norm_epsilon);
  info.rope_base = file.number(a.name + ".rope.freq_base").value_or(10000);
  info.file_bytes = file.bytes();
  for (const GgufTensor& tensor : file.tensors()) {
    info.parameters += element_count(tensor);
    info.weight_bytes += tensor.data.size();
    info.tensors.push_back(describe(tensor));
  }
  return info;
}

Result<Weights> read_weights(const std::string& path, Blocks blocks) {
  initialise_ggml();
  Result<GgufFile> file = GgufFile::open(path);
  if (!file) return tl::unexpected(file.error());
  Result<Architecture> architecture = read_architecture(*file);
  if (!architecture) return tl::unexpected(architecture.error());
  Weights weights{std::move(*file), std::move(*architecture), {}, {}, {}, {}, {}};
  if (Status status = read_tensors(weights, blocks); !status) return tl::unexpected(status.error());
  weights.info = describe(weights.file, weights.architecture);
  return weights;
}

}  // namespace

std::vector<WeightView*> matrices(Weights& weights) {
  std::vector<WeightView*> all{&weights.head};
  for (LayerWeights& w : weights.layers) {
    for (WeightView* matrix : {&w.q, &w.k, &w.v, &w.output, &w.gate, &w.up, &w.down}) all.push_back(matrix);
  }
  return all;
}

Result<Weights> load_weights(const std::string& path) { return read_weights(path, Blocks::check); }

Result<ModelInfo> inspect_model(const std::string& path) {
  return read_weights(path, Blocks::skip).map([](Weights weights) { return std::move(weights.info); });
}

}  // namespace a2sf
