#include "auto_profile.h"
#include "commands.h"
#include "idle_options.h"
#include "options.h"
#include "outcome.h"
#include "tables.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>

namespace a2sf::app {
namespace {

// AsSizeValue reads "-1" as 2^64 - 1.
CLI::Validator starts_with_digit() {
  const auto check = [](const std::string& text) {
    return !text.empty() && text[0] >= '0' && text[0] <= '9' ? ""
                                                             : "a number of bytes, or with a unit (8GiB), is needed";
  };
  return {check, ""};
}

constexpr std::int64_t kMostTokens = std::numeric_limits<std::int32_t>::max();

struct Flags {
  std::string model;
  CacheFlags cache;
  OutputFlags output;
  std::int64_t context = 0;
  std::uint64_t memory = 0;
  bool tensors = false;
};

struct TypeSum {
  std::size_t tensors = 0;
  std::uint64_t bytes = 0;
};

struct Costs {
  std::int64_t context;
  double budget;  // the mean of what the heads are asked to hold
  std::uint64_t full_bytes, bounded_bytes;
};

std::map<std::string, TypeSum> sum_types(const FileInfo& info) {
  std::map<std::string, TypeSum> sums;
  for (const TensorInfo& tensor : info.tensors) {
    ++sums[tensor.type].tensors;
    sums[tensor.type].bytes += tensor.bytes;
  }
  return sums;
}

std::int64_t context_of(const Flags& flags, const ModelInfo& info) {
  return flags.context > 0 ? flags.context : info.context;
}

Costs costs_of(const Flags& flags, const PolicySpec& spec, const ModelInfo& info) {
  Costs costs{};
  costs.context = context_of(flags, info);
  const PolicySpec full = need(parse_policy("full"));
  const auto cost = [&](const PolicySpec& policy) {
    const SessionOptions options{policy, kv_type_of(flags.cache), costs.context, costs.context};
    return need(cache_cost(info, options, costs.context));
  };
  costs.full_bytes = cost(full);
  costs.bounded_bytes = cost(spec);
  for (int layer = 0; layer < info.layers; ++layer) {
    for (int head = 0; head < info.kv_heads; ++head) {
      const std::int64_t budget = need(resolve(spec, layer, info.layers, head, costs.context, 0)).budget;
      costs.budget += static_cast<double>(budget == kKeepAll ? costs.context : budget);
    }
  }
  costs.budget /= info.layers * info.kv_heads;
  return costs;
}

// Sequences whose caches fit beside the weights.
std::uint64_t sequences(const Flags& flags, const ModelInfo& info, std::uint64_t cache_bytes) {
  if (flags.memory <= info.weight_bytes || cache_bytes == 0) return 0;
  return (flags.memory - info.weight_bytes) / cache_bytes;
}

Json or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

// What any file has.
Json file_json(const FileInfo& info) {
  Json document = {{"command", "inspect"},
                   {"version", version()},
                   {"model", info.path},
                   {"model_hash", info.hash},
                   {"name", info.name},
                   {"architecture", info.architecture},
                   {"parameters", info.parameters},
                   {"weight_bytes", info.weight_bytes},
                   {"file_bytes", info.file_bytes},
                   {"has_chat_template", !info.chat_template.empty()},
                   {"chat_template", or_null(info.chat_template)}};
  document["tensor_types"] = Json::object();
  for (const auto& [type, sum] : sum_types(info)) {
    document["tensor_types"][type] = {{"tensors", sum.tensors}, {"bytes", sum.bytes}};
  }
  document["tensors"] = Json::array();
  for (const TensorInfo& tensor : info.tensors) {
    document["tensors"].push_back(
        {{"name", tensor.name}, {"type", tensor.type}, {"shape", tensor.shape}, {"bytes", tensor.bytes}});
  }
  return document;
}

Json model_json(const ModelInfo& info) {
  return {{"layers", info.layers},
          {"heads", info.heads},
          {"kv_heads", info.kv_heads},
          {"head_dim", info.head_dim},
          {"embedding", info.embedding},
          {"feed_forward", info.feed_forward},
          {"vocabulary", info.vocabulary},
          {"trained_context_tokens", info.context},
          {"norm_epsilon", info.norm_epsilon},
          {"rope_base", info.rope_base > 0 ? Json(info.rope_base) : Json()},
          {"sliding_windows", info.windows}};
}

Json cost_json(const Flags& flags, const PolicySpec& spec, const ModelInfo& info, const Costs& costs) {
  Json document = {{"cache",
                    {{"kv_type", flags.cache.kv_type},
                     {"spec", to_string(spec)},
                     {"ctx", costs.context},
                     {"budget", costs.budget},
                     {"full_kv_bytes", costs.full_bytes},
                     {"bounded_kv_bytes", costs.bounded_bytes}}}};
  if (flags.memory > 0) {
    document["memory_bytes"] = flags.memory;
    document["full_sequences"] = sequences(flags, info, costs.full_bytes);
    document["bounded_sequences"] = sequences(flags, info, costs.bounded_bytes);
  }
  return document;
}

std::string line(const char* label, const std::string& value) {
  return fmt::format("{:<17} {}\n", label, harmless(value));
}

std::string windows_text(const ModelInfo& info) {
  const auto without = std::count(info.windows.begin(), info.windows.end(), 0);
  const int window = *std::max_element(info.windows.begin(), info.windows.end());
  if (window == 0) return "none";
  return fmt::format("{} tokens in {} of {} layers", window, info.layers - without, info.layers);
}

std::string file_text(const FileInfo& info) {
  std::string text = line("model", info.name) + line("file", info.path) + line("architecture", info.architecture);
  text += line("parameters", with_commas(info.parameters));
  text += line("weights", fmt::format("{} of a file of {}", bytes_text(static_cast<double>(info.weight_bytes)),
                                      bytes_text(static_cast<double>(info.file_bytes))));
  text += line("chat template", info.chat_template.empty() ? "no" : "yes");
  for (const auto& [type, sum] : sum_types(info)) {
    text += line("tensors",
                 fmt::format("{:>4} of {:<5} {}", sum.tensors, type, bytes_text(static_cast<double>(sum.bytes))));
  }
  return text;
}

std::string model_text(const ModelInfo& info) {
  std::string text = line("layers", std::to_string(info.layers));
  text += line("heads",
               fmt::format("{}, {}, {} each", info.heads, counted(static_cast<std::size_t>(info.kv_heads), "KV head"),
                           counted(static_cast<std::size_t>(info.head_dim), "element")));
  text += line("embedding", with_commas(static_cast<std::uint64_t>(info.embedding)));
  text += line("feed forward", with_commas(static_cast<std::uint64_t>(info.feed_forward)));
  text += line("vocabulary", with_commas(static_cast<std::uint64_t>(info.vocabulary)));
  text += line("trained context", fmt::format("{} tokens", with_commas(static_cast<std::uint64_t>(info.context))));
  text += line("positions", info.rope_base > 0 ? fmt::format("RoPE, base {}", info.rope_base) : "learned");
  text += line("sliding window", windows_text(info));
  return text;
}

std::string tensor_table(const FileInfo& info) {
  std::vector<std::vector<std::string>> rows = {{"tensor", "type", "shape", "bytes"}};
  for (const TensorInfo& tensor : info.tensors) {
    rows.push_back(
        {tensor.name, tensor.type, fmt::format("{}", fmt::join(tensor.shape, " x ")), with_commas(tensor.bytes)});
  }
  return "\n" + aligned_table(rows);
}

std::string cost_table(const Flags& flags, const ModelInfo& info, const Costs& costs) {
  std::vector<std::vector<std::string>> rows = {{"KV cache of one sequence", "tokens", "bytes"}};
  const auto add = [&](const char* label, double tokens, std::uint64_t bytes) {
    rows.push_back(
        {label, with_commas(static_cast<std::uint64_t>(std::llround(tokens))), bytes_text(static_cast<double>(bytes))});
    if (flags.memory > 0) rows.back().push_back(with_commas(sequences(flags, info, bytes)));
  };
  if (flags.memory > 0)
    rows.front().push_back(fmt::format("sequences in {}", bytes_text(static_cast<double>(flags.memory))));
  add("full", static_cast<double>(costs.context), costs.full_bytes);
  add("with the budget", costs.budget, costs.bounded_bytes);
  return "\n" + aligned_table(rows);
}

// A file that no command can run, of another architecture or without weights, is shown as far as every file is alike.
void run(const Flags& flags) {
  PolicySpec spec = spec_of(flags.cache);
  const auto [file, model] = need(inspect(flags.model));
  Json document = file_json(file);
  std::string text = file_text(file);
  document["supported"] = model.has_value();
  if (model) {
    use_auto_profile(flags.cache, *model, {.tokens = context_of(flags, *model)}, {&spec, 1}, flags.output.json);
    const Costs costs = costs_of(flags, spec, *model);
    if (!flags.cache.budget.empty()) {
      warn_of_budgets_that_hold_all({&spec, 1}, *model, static_cast<std::size_t>(costs.context), "a sequence");
    }
    document.update(model_json(*model));
    document.update(cost_json(flags, spec, *model, costs));
    text += model_text(*model) + cost_table(flags, *model, costs);
  } else {
    document["why_not"] = model.error().message;
    text += line("cannot be run", model.error().message);
  }
  if (flags.tensors) text += tensor_table(file);
  Delivery(flags.output).deliver(document, text);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = add_command(
      app, "inspect", "What is in a GGUF file, whatever its architecture; for one that can be run, what a budget costs",
      "a2sf inspect model.gguf --budget 512 --ctx 8192 --memory 8GiB");
  add_model_file(command, &flags->model);
  add_budget_flags(command, &flags->cache);
  command->add_option("-c,--ctx", flags->context, "Length of a sequence")
      ->type_name("N")
      ->default_str("as trained")
      ->check(CLI::Range(std::int64_t{1}, kMostTokens));
  command->add_option("--memory", flags->memory, "Memory for weights and caches: how many sequences fit (8GiB)")
      ->type_name("BYTES")
      ->transform(CLI::AsSizeValue(false))
      ->transform(starts_with_digit());  // the one added last is asked first
  command->add_flag("--tensors", flags->tensors, "List every tensor: name, type, shape, bytes");
  add_kv_type_flag(command, &flags->cache);
  add_json_flag(command, &flags->output);
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
