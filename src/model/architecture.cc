#include "model/architecture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>

namespace a2sf {
namespace {

constexpr std::array kFamilies = {
    Family{.name = "llama", .rope = RopeKind::interleaved},
    Family{.name = "qwen2", .biases = Biases::attention_input},
    Family{.name = "qwen3", .qk_norm = true},
    Family{.name = "gemma3",
           .activation = Activation::gelu_tanh,
           .qk_norm = true,
           .output_norms = true,
           .scaled_embedding = true,
           .window_period = 6},
    Family{.name = "phi3", .fused_qkv = true, .fused_gate = true},
    Family{.name = "gpt2",
           .norm = NormKind::layer,
           .activation = Activation::gelu_tanh,
           .rope = RopeKind::none,
           .biases = Biases::all,
           .gated = false,
           .fused_qkv = true,
           .learned_positions = true},
    Family{.name = "gptneox",
           .norm = NormKind::layer,
           .activation = Activation::gelu_erf,
           .biases = Biases::all,
           .gated = false,
           .fused_qkv = true,
           .parallel_residual = true},
    Family{.name = "opt",
           .norm = NormKind::layer,
           .activation = Activation::relu,
           .rope = RopeKind::none,
           .biases = Biases::all,
           .gated = false,
           .learned_positions = true,
           .position_offset = 2},
};
constexpr const char* kSupportedScaling = "none, linear, yarn, longrope, and the factors of rope_freqs.weight";

constexpr const char* kRopeFactors = "rope_freqs.weight";
constexpr const char* kShortFactors = "rope_factors_short.weight";

// Far above every model there is; low enough that no product of two of them overflows.
constexpr std::int64_t kMostLayers = 4096;
constexpr std::int64_t kMostHeads = 4096;
constexpr std::int64_t kMostHeadDim = 4096;
constexpr std::int64_t kMostEmbedding = std::int64_t{1} << 20;
constexpr std::int64_t kMostFeedForward = std::int64_t{1} << 22;
constexpr std::int64_t kMostVocabulary = std::int64_t{1} << 24;
constexpr std::int64_t kMostContext = std::int64_t{1} << 31;

// Reads keys below the architecture's name and keeps the first error, so that callers can read a row of them.
class Keys {
 public:
  Keys(const GgufFile& file, std::string architecture) : file_(file), prefix_(std::move(architecture) + ".") {}

  bool has(const char* key) const { return file_.has(prefix_ + key); }
  std::string name(const char* key) const { return prefix_ + key; }

  std::int64_t count(const char* key, std::int64_t most) {
    const Result<std::int64_t> value = file_.integer(prefix_ + key);
    if (!value) return keep(value.error()), 1;
    if (*value < 1 || *value > most) {
      keep(fail_in(file_, ErrorKind::bad_input,
                   fmt::format("key '{}' is {}: it has to be 1 to {}", prefix_ + key, *value, most))
               .value());
      return 1;
    }
    return *value;
  }

  std::int64_t count(const char* key, std::int64_t most, std::int64_t otherwise) {
    return has(key) ? count(key, most) : otherwise;
  }

  std::int64_t integer(const char* key) {
    const Result<std::int64_t> value = file_.integer(prefix_ + key);
    if (!value) keep(value.error());
    return value.value_or(0);
  }

  // `least` itself is allowed only if it is above 0.
  double number(const char* key, double least, double most) {
    const Result<double> value = file_.number(prefix_ + key);
    if (!value) return keep(value.error()), 1;
    if (!(*value >= least && *value > 0 && *value <= most)) {
      keep(fail_in(file_, ErrorKind::bad_input,
                   fmt::format("key '{}' is {}: it has to be {}{} to {}", prefix_ + key, *value,
                               least > 0 ? "" : "above ", least, most))
               .value());
      return 1;
    }
    return *value;
  }

  double number(const char* key, double least, double most, double otherwise) {
    return has(key) ? number(key, least, most) : otherwise;
  }

  bool boolean(const char* key, bool otherwise) {
    if (!has(key)) return otherwise;
    const Result<bool> value = file_.boolean(prefix_ + key);
    if (!value) keep(value.error());
    return value.value_or(otherwise);
  }

  std::string string(const char* key, const char* otherwise) {
    if (!has(key)) return otherwise;
    const Result<std::string> value = file_.string(prefix_ + key);
    if (!value) return keep(value.error()), otherwise;
    return *value;
  }

  void refuse(ErrorKind kind, const std::string& message) { keep(fail_in(file_, kind, message).value()); }

  Status status() const {
    if (error_) return tl::unexpected(*error_);
    return {};
  }

 private:
  void keep(const Error& error) {
    if (!error_) error_ = error;
  }

  const GgufFile& file_;
  std::string prefix_;
  std::optional<Error> error_;
};

void refuse_variants(Keys& keys) {
  // These change the result without any tensor showing it.
  constexpr std::array kUnsupported = {"rope.scaling.yarn_log_multiplier",
                                       "rope.scaling.yarn_ext_factor",
                                       "rope.scaling.yarn_attn_factor",
                                       "rope.scaling.yarn_beta_fast",
                                       "rope.scaling.yarn_beta_slow",
                                       "attention.scale",
                                       "attn_logit_softcapping"};
  if (keys.has("expert_count") && keys.integer("expert_count") != 0) {
    keys.refuse(ErrorKind::unsupported,
                fmt::format("key '{}' is not 0: experts are not supported", keys.name("expert_count")));
  }
  for (const char* key : kUnsupported) {
    if (!keys.has(key)) continue;
    keys.refuse(ErrorKind::unsupported, fmt::format("key '{}' is not supported", keys.name(key)));
  }
}

void read_head_dim(Keys& keys, Architecture& a) {
  if (!keys.has("attention.key_length")) {
    if (a.embedding % a.heads != 0) {
      keys.refuse(ErrorKind::bad_input, fmt::format("'{}' {} is no multiple of '{}' {}", keys.name("embedding_length"),
                                                    a.embedding, keys.name("attention.head_count"), a.heads));
    }
    a.head_dim = std::max(1, a.embedding / a.heads);
    if (a.head_dim > kMostHeadDim) {
      keys.refuse(ErrorKind::bad_input, fmt::format("'{}' {} with {} heads: a head has at most {} dimensions",
                                                    keys.name("embedding_length"), a.embedding, a.heads, kMostHeadDim));
    }
  } else {
    a.head_dim = static_cast<int>(keys.count("attention.key_length", kMostHeadDim));
  }
  const std::int64_t value_length = keys.count("attention.value_length", kMostHeadDim, a.head_dim);
  if (value_length != a.head_dim) {
    keys.refuse(ErrorKind::unsupported, fmt::format("key '{}' is {}, not {} like a head's keys",
                                                    keys.name("attention.value_length"), value_length, a.head_dim));
  }
}

void read_counts(Keys& keys, const Family& family, Architecture& a) {
  a.layers = static_cast<int>(keys.count("block_count", kMostLayers));
  a.heads = static_cast<int>(keys.count("attention.head_count", kMostHeads));
  a.kv_heads = static_cast<int>(keys.count("attention.head_count_kv", kMostHeads, a.heads));
  a.embedding = static_cast<int>(keys.count("embedding_length", kMostEmbedding));
  a.feed_forward = static_cast<int>(keys.count("feed_forward_length", kMostFeedForward));
  a.context = keys.count("context_length", kMostContext);
  a.norm_kind = family.norm;
  const bool rms = family.norm == NormKind::rms;
  a.norm_epsilon =
      static_cast<float>(keys.number(rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", 0, 1));
  if (a.heads % a.kv_heads != 0) {
    keys.refuse(ErrorKind::bad_input,
                fmt::format("'{}' {} is no multiple of '{}' {}", keys.name("attention.head_count"), a.heads,
                            keys.name("attention.head_count_kv"), a.kv_heads));
  }
}

struct RopeScaling {
  int dims = 0;  // leading dimensions of a head that are rotated; even
  double base = 10000, factor = 1, magnitude = 1;
  bool yarn = false;
  double low = 0, high = 0;  // yarn: pairs below low keep their angle, pairs above high are divided by the factor
};

// Pair that turns `turns` times within the original context.
double yarn_pair(int dims, double context, double turns, double base) {
  return dims * std::log(context / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
}

void read_yarn(Keys& keys, const Architecture& a, RopeScaling& scaling) {
  constexpr double kFastTurns = 32, kSlowTurns = 1;  // as libllama has them
  const auto context = static_cast<double>(keys.count("rope.scaling.original_context_length", kMostContext, a.context));
  if (scaling.factor < 1 || scaling.base <= 1) {
    keys.refuse(ErrorKind::bad_input, fmt::format("key '{}' is yarn: the factor has to be at least 1, the base above 1",
                                                  keys.name("rope.scaling.type")));
    return;
  }
  scaling.yarn = true;
  scaling.low = std::max(0.0, std::floor(yarn_pair(scaling.dims, context, kFastTurns, scaling.base)));
  scaling.high = std::min(scaling.dims - 1.0, std::ceil(yarn_pair(scaling.dims, context, kSlowTurns, scaling.base)));
  scaling.magnitude *= 1 + 0.1 * std::log(scaling.factor);
}

RopeScaling read_rope_scaling(const GgufFile& file, Keys& keys, Architecture& a, int dims) {
  constexpr double kMostFactor = 1e6;
  RopeScaling scaling;
  scaling.dims = dims;
  scaling.base = keys.number("rope.freq_base", 0, 1e12, scaling.base);
  scaling.factor = keys.number("rope.scale_linear", 0, kMostFactor, 1);  // what older files call it
  scaling.factor = keys.number("rope.scaling.factor", 0, kMostFactor, scaling.factor);
  scaling.magnitude = keys.number("rope.scaling.attn_factor", 0, kMostFactor, 1);
  // Files of longrope need not say so otherwise than by its factors.
  const bool has_factors = file.find(kShortFactors) != nullptr;
  const std::string type = keys.string("rope.scaling.type", has_factors ? "longrope" : "linear");
  if (type == "longrope") {
    a.longrope = true;
    a.most_positions = keys.count("rope.scaling.original_context_length", kMostContext);
  } else if (type == "none") {
    scaling.factor = 1;
  } else if (type == "yarn") {
    read_yarn(keys, a, scaling);
  } else if (type != "linear") {
    keys.refuse(ErrorKind::unsupported, fmt::format("key '{}' is '{}'; supported: {}", keys.name("rope.scaling.type"),
                                                    type, kSupportedScaling));
  }
  return scaling;
}

double rope_angle(const RopeScaling& scaling, int pair, double frequency_factor) {
  const double angle = std::pow(scaling.base, -2.0 * pair / scaling.dims) / frequency_factor;
  const double scaled = angle / scaling.factor;
  if (!scaling.yarn) return scaled;
  const double ramp = (pair - scaling.low) / std::max(0.001, scaling.high - scaling.low);
  const double keep = 1 - std::clamp(ramp, 0.0, 1.0);
  return scaled * (1 - keep) + angle * keep;
}

// A vector that divides the angle of each pair.
Result<std::vector<double>> read_factors(const GgufFile& file, const char* name, int pairs) {
  const GgufTensor* tensor = file.find(name);
  if (tensor == nullptr) return fail_in(file, ErrorKind::bad_input, fmt::format("tensor '{}' is missing", name));
  if (tensor->type != GGML_TYPE_F32 || tensor->shape != std::vector<std::int64_t>{pairs}) {
    return fail_in(file, ErrorKind::bad_input, fmt::format("tensor '{}' is no vector of {} f32", name, pairs));
  }
  std::vector<double> factors;
  for (int i = 0; i < pairs; ++i) {
    float factor;
    std::memcpy(&factor, tensor->data.data() + static_cast<std::size_t>(i) * sizeof(float), sizeof(float));
    if (!(factor > 0 && std::isfinite(factor))) {
      return fail_in(file, ErrorKind::bad_input,
                     fmt::format("tensor '{}' holds {}: factors have to be above 0", name, factor));
    }
    factors.push_back(factor);
  }
  return factors;
}

// Llama 3 stores its scaling as factors; longrope has some for sequences within the original context and others, for
// all their positions, beyond it. Where a sequence will end nobody knows when it begins: it ends with the first ones.
Result<std::vector<double>> frequency_factors(const GgufFile& file, const Architecture& a, int pairs) {
  if (a.longrope) return read_factors(file, kShortFactors, pairs);
  if (file.find(kRopeFactors) != nullptr) return read_factors(file, kRopeFactors, pairs);
  return std::vector<double>(static_cast<std::size_t>(pairs), 1.0);
}

Rope make_rope(RopeKind kind, const RopeScaling& scaling, const std::vector<double>& frequency_factors) {
  Rope rope{kind, scaling.base, {}, static_cast<float>(scaling.magnitude)};
  for (int pair = 0; pair < scaling.dims / 2; ++pair) {
    rope.angles.push_back(rope_angle(scaling, pair, frequency_factors[static_cast<std::size_t>(pair)]));
  }
  return rope;
}

bool has_windows(const Architecture& a) {
  return std::any_of(a.windows.begin(), a.windows.end(), [](int window) { return window > 0; });
}

Status read_rope(const GgufFile& file, Keys& keys, const Family& family, Architecture& a) {
  if (family.rope == RopeKind::none) {
    a.ropes = {Rope{}};
    return {};
  }
  const std::int64_t dims = keys.count("rope.dimension_count", kMostHeadDim, a.head_dim);
  if (dims > a.head_dim || dims % 2 != 0) {
    keys.refuse(ErrorKind::bad_input, fmt::format("RoPE over {} dimensions of heads of {}: has to be even, at most {} "
                                                  "(key '{}')",
                                                  dims, a.head_dim, a.head_dim, keys.name("rope.dimension_count")));
  }
  const RopeScaling scaling = read_rope_scaling(file, keys, a, static_cast<int>(dims));
  RopeScaling of_windows{.dims = scaling.dims};  // a window never reaches beyond what the layer was trained on
  of_windows.base = keys.number("rope.freq_base_swa", 0, 1e12, of_windows.base);
  if (Status status = keys.status(); !status) return status;

  const Result<std::vector<double>> factors = frequency_factors(file, a, scaling.dims / 2);
  if (!factors) return tl::unexpected(factors.error());
  a.ropes.push_back(make_rope(family.rope, scaling, *factors));
  if (family.window_period > 0 && has_windows(a)) {
    a.ropes.push_back(make_rope(family.rope, of_windows, std::vector<double>(factors->size(), 1.0)));
  }
  return {};
}

// Every period-th layer sees everything, the others the newest tokens; without a period all do.
void read_windows(Keys& keys, const Family& family, Architecture& a) {
  a.windows.assign(static_cast<std::size_t>(a.layers), 0);
  const char* key = "attention.sliding_window";
  if (!keys.has(key) || keys.integer(key) == 0) return;
  const int window = static_cast<int>(keys.count(key, kMostContext - 1));
  // Where all layers are alike, one that hides nothing the model was trained to see is none.
  if (family.window_period == 0 && window >= a.context) return;
  const char* pattern = "attention.sliding_window_pattern";
  const int period = keys.has(pattern) ? static_cast<int>(keys.count(pattern, kMostLayers)) : family.window_period;
  for (int layer = 0; layer < a.layers; ++layer) {
    if (period == 0 || (layer + 1) % period != 0) a.windows[static_cast<std::size_t>(layer)] = window;
  }
}

void read_computation(Keys& keys, const Family& family, Architecture& a) {
  a.activation = family.activation;
  a.learned_positions = family.learned_positions;
  if (a.learned_positions) a.most_positions = a.context;
  a.position_offset = family.position_offset;
  a.parallel_residual = keys.boolean("use_parallel_residual", family.parallel_residual);
  a.norms_follow = !keys.boolean("layer_norm_before", true);
  a.embedding_scale = family.scaled_embedding ? std::sqrt(static_cast<float>(a.embedding)) : 1;
  a.logit_softcap =
      keys.has("final_logit_softcapping") ? static_cast<float>(keys.number("final_logit_softcapping", 0, 1e6)) : 0;
  // No key says so, but the largest Gemma 3, the one of 62 layers, scales by another size.
  const bool largest_gemma = a.name == "gemma3" && a.layers == 62;
  const int scaled_by = largest_gemma ? a.embedding / a.heads : a.head_dim;
  a.attention_scale = 1 / std::sqrt(static_cast<float>(scaled_by));
}

// The vocabulary is what the embedding holds; the tokens in the file are the tokenizer's business.
Status read_vocabulary(const GgufFile& file, Architecture& a) {
  const GgufTensor* embedding = file.find("token_embd.weight");
  if (embedding == nullptr) return fail_in(file, ErrorKind::bad_input, "tensor 'token_embd.weight' is missing");
  const std::int64_t rows = embedding->shape.size() > 1 ? embedding->shape[1] : 1;
  if (rows > kMostVocabulary) {
    return fail_in(file, ErrorKind::bad_input,
                   fmt::format("tensor 'token_embd.weight' has {} rows, more than {}", rows, kMostVocabulary));
  }
  a.vocabulary = static_cast<int>(rows);
  return {};
}

std::string printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  }
  constexpr std::size_t kMost = 64;
  return text.size() > kMost ? text.substr(0, kMost) + "..." : text;
}

}  // namespace

tl::unexpected<Error> fail_in(const GgufFile& file, ErrorKind kind, const std::string& message) {
  return fail(kind, fmt::format("\"{}\": {}", file.path(), message));
}

Result<Family> find_family(const GgufFile& file) {
  const Result<std::string> name = file.string("general.architecture");
  if (!name) return tl::unexpected(name.error());
  std::string supported;
  for (const Family& family : kFamilies) {
    if (*name == family.name) return family;
    supported += (supported.empty() ? "" : ", ") + std::string(family.name);
  }
  return fail_in(file, ErrorKind::unsupported,
                 fmt::format("architecture '{}' is not supported; supported: {}", printable(*name), supported));
}

const Family& family_named(std::string_view name) {
  return *std::find_if(kFamilies.begin(), kFamilies.end(), [&](const Family& family) { return family.name == name; });
}

Result<Architecture> read_architecture(const GgufFile& file, const Family& family) {
  Keys keys(file, family.name);
  Architecture architecture{};
  architecture.name = family.name;
  refuse_variants(keys);
  read_counts(keys, family, architecture);
  read_head_dim(keys, architecture);
  if (Status status = keys.status(); !status) return tl::unexpected(status.error());
  read_windows(keys, family, architecture);
  read_computation(keys, family, architecture);
  if (Status status = read_rope(file, keys, family, architecture); !status) return tl::unexpected(status.error());
  if (Status status = keys.status(); !status) return tl::unexpected(status.error());
  if (Status status = read_vocabulary(file, architecture); !status) return tl::unexpected(status.error());
  return architecture;
}

}  // namespace a2sf
