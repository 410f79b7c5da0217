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
  WeightView vector_if(bool required, const std::string& name, std::int64_t size) {
    return required || has(name) ? vector(name, size) : WeightView{};
  }

  std::int64_t columns(const std::string& name) const {
    const GgufTensor* tensor = file_.find(name);
    return tensor == nullptr ? 1 : tensor->shape.front();
  }

  // A tensor that nobody read would change the result in a way this build knows nothing of.
  Status finish(const Architecture& a) {
    const std::string_view rope_factors = a.longrope ? "rope_factors_" : "rope_freqs.weight";
    for (const GgufTensor& tensor : file_.tensors()) {
      if (used_.contains(tensor.name) || tensor.name.starts_with(rope_factors)) continue;
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

// Rows of a matrix, or elements of a vector, that a file keeps in one tensor.
WeightView part_of(const WeightView& whole, std::int64_t first, std::int64_t count) {
  if (!whole) return {};
  if (whole.rows == 1) return {whole.type, 1, count, whole.data + first * static_cast<std::int64_t>(sizeof(float))};
  return {whole.type, count, whole.columns, whole.row(first)};
}

// Reads the tensors of one architecture, layer by layer.
class ModelReader {
 public:
  ModelReader(TensorReader& tensors, const Family& family, const Architecture& a)
      : tensors_(tensors), family_(family), a_(a) {}

  LayerWeights layer(int index) {
    prefix_ = fmt::format("blk.{}.", index);
    LayerWeights w;
    (a_.norms_follow ? w.attention_sum_norm : w.attention_norm) = norm("attn_norm", a_.embedding);
    (a_.norms_follow ? w.feed_forward_sum_norm : w.feed_forward_norm) = norm("ffn_norm", a_.embedding);
    if (family_.output_norms) {
      w.attention_output_norm = norm("post_attention_norm", a_.embedding);
      w.feed_forward_output_norm = norm("post_ffw_norm", a_.embedding);
    }
    read_attention(w);
    read_feed_forward(w);
    return w;
  }

  void ends(Weights& w) {
    prefix_.clear();
    // A narrower embedding is projected to the width of the layers, and back.
    const std::int64_t width = tensors_.has("project_in.weight") ? tensors_.columns("token_embd.weight") : a_.embedding;
    w.embedding = tensors_.matrix("token_embd.weight", width, a_.vocabulary);
    w.head = tensors_.has("output.weight") ? tensors_.matrix("output.weight", width, a_.vocabulary) : w.embedding;
    if (width != a_.embedding) {
      w.project_in = tensors_.matrix("project_in.weight", width, a_.embedding);
      w.project_out = tensors_.matrix("project_out.weight", a_.embedding, width);
    }
    if (a_.learned_positions) {
      w.positions = tensors_.matrix("position_embd.weight", a_.embedding, a_.context + a_.position_offset);
    }
    if (!a_.norms_follow) w.output_norm = norm("output_norm", a_.embedding);
  }

 private:
  void read_attention(LayerWeights& w) {
    const std::int64_t query = std::int64_t{a_.heads} * a_.head_dim, key = std::int64_t{a_.kv_heads} * a_.head_dim;
    if (family_.fused_qkv) {
      const WeightView all = matrix("attn_qkv.weight", a_.embedding, query + 2 * key);
      const WeightView bias = this->bias("attn_qkv.bias", query + 2 * key, Biases::attention_input);
      w.q = part_of(all, 0, query);
      w.k = part_of(all, query, key);
      w.v = part_of(all, query + key, key);
      w.q_bias = part_of(bias, 0, query);
      w.k_bias = part_of(bias, query, key);
      w.v_bias = part_of(bias, query + key, key);
    } else {
      w.q = matrix("attn_q.weight", a_.embedding, query);
      w.k = matrix("attn_k.weight", a_.embedding, key);
      w.v = matrix("attn_v.weight", a_.embedding, key);
      w.q_bias = bias("attn_q.bias", query, Biases::attention_input);
      w.k_bias = bias("attn_k.bias", key, Biases::attention_input);
      w.v_bias = bias("attn_v.bias", key, Biases::attention_input);
    }
    w.output = matrix("attn_output.weight", query, a_.embedding);
    w.output_bias = bias("attn_output.bias", a_.embedding, Biases::all);
    if (family_.qk_norm) {
      w.q_norm = norm("attn_q_norm", a_.head_dim);
      w.k_norm = norm("attn_k_norm", a_.head_dim);
    }
  }

  void read_feed_forward(LayerWeights& w) {
    if (family_.fused_gate) {
      const WeightView both = matrix("ffn_up.weight", a_.embedding, std::int64_t{2} * a_.feed_forward);
      w.gate = part_of(both, 0, a_.feed_forward);
      w.up = part_of(both, a_.feed_forward, a_.feed_forward);
    } else {
      if (family_.gated) w.gate = matrix("ffn_gate.weight", a_.embedding, a_.feed_forward);
      w.up = matrix("ffn_up.weight", a_.embedding, a_.feed_forward);
    }
    w.down = matrix("ffn_down.weight", a_.feed_forward, a_.embedding);
    if (family_.biases != Biases::all) return;
    w.up_bias = bias("ffn_up.bias", a_.feed_forward, Biases::all);
    w.down_bias = bias("ffn_down.bias", a_.embedding, Biases::all);
  }

  WeightView matrix(const char* name, std::int64_t columns, std::int64_t rows) {
    return tensors_.matrix(prefix_ + name, columns, rows);
  }
  // Required from `least` on, otherwise read where it is there.
  WeightView bias(const char* name, std::int64_t size, Biases least) {
    return tensors_.vector_if(family_.biases >= least, prefix_ + name, size);
  }
  Norm norm(const std::string& name, std::int64_t size) {
    const std::string full = prefix_ + name;
    Norm norm{a_.norm_kind, a_.norm_epsilon, tensors_.vector(full + ".weight", size), {}};
    if (a_.norm_kind == NormKind::layer) norm.bias = tensors_.vector(full + ".bias", size);
    return norm;
  }

  TensorReader& tensors_;
  const Family& family_;
  const Architecture& a_;
  std::string prefix_;
};

Status read_tensors(Weights& weights, const Family& family, Blocks blocks) {
  const Architecture& a = weights.architecture;
  TensorReader tensors(*weights.file, blocks);
  ModelReader reader(tensors, family, a);
  reader.ends(weights);
  for (int layer = 0; layer < a.layers && !tensors.failed(); ++layer) weights.layers.push_back(reader.layer(layer));
  return tensors.finish(a);
}

TensorInfo describe(const GgufTensor& tensor) {
  return {tensor.name, ggml_type_name(tensor.type), tensor.shape, tensor.data.size()};
}

std::uint64_t element_count(const GgufTensor& tensor) {
  const auto blocks = tensor.data.size() / ggml_type_size(tensor.type);
  return blocks * static_cast<std::uint64_t>(ggml_blck_size(tensor.type));
}

FileInfo describe(const GgufFile& file) {
  FileInfo info{};
  info.path = file.path();
  info.hash = file.hash();
  info.name = file.string("general.name").value_or("");
  info.architecture = file.string("general.architecture").value_or("");
  info.chat_template = file.string("tokenizer.chat_template").value_or("");
  info.file_bytes = file.bytes();
  for (const GgufTensor& tensor : file.tensors()) {
    info.parameters += element_count(tensor);
    info.weight_bytes += tensor.data.size();
    info.tensors.push_back(describe(tensor));
  }
  return info;
}

Result<Weights> read_weights(const GgufFile& file, Blocks blocks) {
  initialise_ggml();
  const Result<Family> family = find_family(file);
  if (!family) return tl::unexpected(family.error());
  Result<Architecture> architecture = read_architecture(file, *family);
  if (!architecture) return tl::unexpected(architecture.error());
  Weights weights{file, std::move(*architecture), {}, {}, {}, {}, {}, {}, {}, {}};
  if (Status status = read_tensors(weights, *family, blocks); !status) return tl::unexpected(status.error());
  static_cast<FileInfo&>(weights.info) = describe(file);
  describe(weights.architecture, weights.info);
  return weights;
}

}  // namespace

void initialise_ggml() { [[maybe_unused]] static const bool once = (ggml_cpu_init(), true); }

bool can_multiply(ggml_type type) {
  const bool readable = type == GGML_TYPE_F32 || ggml_get_type_traits(type)->to_float != nullptr;
  return readable && ggml_get_type_traits_cpu(type)->vec_dot != nullptr;
}

void describe(const Architecture& a, ModelInfo& info) {
  info.layers = a.layers;
  info.heads = a.heads;
  info.kv_heads = a.kv_heads;
  info.head_dim = a.head_dim;
  info.embedding = a.embedding;
  info.feed_forward = a.feed_forward;
  info.vocabulary = a.vocabulary;
  info.context = a.context;
  info.norm_epsilon = static_cast<double>(a.norm_epsilon);
  info.rope_base = a.ropes.front().base;
  info.windows = a.windows;
}

std::vector<const WeightView*> matrices(const Weights& weights) {
  std::vector<const WeightView*> all{&weights.head, &weights.project_in, &weights.project_out};
  for (const LayerWeights& w : weights.layers) {
    for (const WeightView* matrix : {&w.q, &w.k, &w.v, &w.output, &w.gate, &w.up, &w.down}) all.push_back(matrix);
  }
  std::erase_if(all, [](const WeightView* matrix) { return !*matrix; });
  return all;
}

std::vector<RoleOfWeight> all_weights(Weights& weights) {
  std::vector<RoleOfWeight> all{{&weights.embedding, WeightRole::embedding},
                                {&weights.positions, WeightRole::positions}};
  const auto add = [&](WeightRole role, std::initializer_list<WeightView*> views) {
    for (WeightView* view : views) all.push_back({view, role});
  };
  const auto add_norms = [&](std::initializer_list<Norm*> norms) {
    for (Norm* norm : norms) add(WeightRole::vector, {&norm->weight, &norm->bias});
  };
  add(WeightRole::matrix, {&weights.head, &weights.project_in, &weights.project_out});
  add_norms({&weights.output_norm});
  for (LayerWeights& w : weights.layers) {
    add(WeightRole::matrix, {&w.q, &w.k, &w.v, &w.output, &w.gate, &w.up, &w.down});
    add(WeightRole::vector, {&w.q_bias, &w.k_bias, &w.v_bias, &w.output_bias, &w.up_bias, &w.down_bias});
    add_norms({&w.q_norm, &w.k_norm, &w.attention_norm, &w.attention_output_norm, &w.attention_sum_norm,
               &w.feed_forward_norm, &w.feed_forward_output_norm, &w.feed_forward_sum_norm});
  }
  std::erase_if(all, [](const RoleOfWeight& each) { return !*each.weight; });
  return all;
}

Result<Weights> load_weights(const std::string& path) {
  return GgufFile::open(path).and_then([](const GgufFile& file) { return read_weights(file, Blocks::check); });
}

Result<Inspection> inspect(const std::string& path) {
  return GgufFile::open(path).map([](const GgufFile& file) {
    const auto info_of = [](Weights weights) { return std::move(weights.info); };
    return Inspection{describe(file), read_weights(file, Blocks::skip).map(info_of)};
  });
}

}  // namespace a2sf
