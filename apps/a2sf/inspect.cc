#include "commands.h"
#include "eval/cache_size.h"
#include "options.h"
#include "outcome.h"
#include "tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

namespace a2sf::app {
namespace {

struct Flags {
  std::string model, budget;
  CacheFlags cache;
  OutputFlags output;
  std::int64_t context = 0;
  std::uint64_t memory = 0;
};

struct TypeSum {
  std::size_t tensors = 0;
  std::uint64_t bytes = 0;
};

struct Costs {
  std::int64_t context, budget;
  std::uint64_t full_bytes, bounded_bytes;
};

std::map<std::string, TypeSum> sum_types(const ModelInfo& info) {
  std::map<std::string, TypeSum> sums;
  for (const TensorInfo& tensor : info.tensors) {
    ++sums[tensor.type].tensors;
    sums[tensor.type].bytes += tensor.bytes;
  }
  return sums;
}

std::int64_t tokens_kept(const Budget& budget, std::int64_t context) {
  if (!budget.table.empty()) fail_with(kWrongUsage, "--budget: inspect takes a count or a ratio, not a table");
  if (budget.ratio > 0) return static_cast<std::int64_t>(std::ceil(budget.ratio * static_cast<double>(context)));
  return budget.count;
}

Costs costs_of(const Flags& flags, const Budget& budget, const ModelInfo& info) {
  Costs costs{};
  costs.context = flags.context > 0 ? flags.context : info.context;
  costs.budget = tokens_kept(budget, costs.context);
  const KvType type = kv_type_of(flags.cache);
  costs.full_bytes = full_cache_bytes(info, costs.context, type);
  costs.bounded_bytes = std::min(bounded_cache_bytes(info, costs.budget, type), costs.full_bytes);
  return costs;
}

// Sequences whose caches fit beside the weights.
std::uint64_t sequences(const Flags& flags, const ModelInfo& info, std::uint64_t cache_bytes) {
  if (flags.memory <= info.weight_bytes || cache_bytes == 0) return 0;
  return (flags.memory - info.weight_bytes) / cache_bytes;
}

Json document_of(const Flags& flags, const ModelInfo& info, const Costs& costs, bool has_template) {
  Json document = {{"command", "inspect"},
                   {"version", version()},
                   {"model", info.path},
                   {"model_hash", hash_of_file(info.path)},
                   {"name", info.name},
                   {"architecture", info.architecture},
                   {"layers", info.layers},
                   {"heads", info.heads},
                   {"kv_heads", info.kv_heads},
                   {"head_dim", info.head_dim},
                   {"embedding", info.embedding},
                   {"feed_forward", info.feed_forward},
                   {"vocabulary", info.vocabulary},
                   {"trained_context_tokens", info.context},
                   {"norm_epsilon", info.norm_epsilon},
                   {"rope_base", info.rope_base > 0 ? Json(info.rope_base) : Json()},
                   {"sliding_windows", info.windows},
                   {"parameters", info.parameters},
                   {"weight_bytes", info.weight_bytes},
                   {"file_bytes", info.file_bytes},
                   {"has_chat_template", has_template}};
  document["tensor_types"] = Json::object();
  for (const auto& [type, sum] : sum_types(info)) {
    document["tensor_types"][type] = {{"tensors", sum.tensors}, {"bytes", sum.bytes}};
  }
  document["cache"] = {{"kv_type", flags.cache.kv_type},
                       {"ctx", costs.context},
                       {"budget", costs.budget},
                       {"full_kv_bytes", costs.full_bytes},
                       {"bounded_kv_bytes", costs.bounded_bytes}};
  if (flags.memory > 0) {
    document["memory_bytes"] = flags.memory;
    document["full_sequences"] = sequences(flags, info, costs.full_bytes);
    document["bounded_sequences"] = sequences(flags, info, costs.bounded_bytes);
  }
  return document;
}

std::string line(const char* label, const std::string& value) { return fmt::format("{:<17} {}\n", label, value); }

std::string windows_text(const ModelInfo& info) {
  const auto without = std::count(info.windows.begin(), info.windows.end(), 0);
  const int window = *std::max_element(info.windows.begin(), info.windows.end());
  if (window == 0) return "none";
  return fmt::format("{} tokens in {} of {} layers", window, info.layers - without, info.layers);
}

std::string facts(const ModelInfo& info, bool has_template) {
  std::string text = line("model", info.name) + line("file", info.path) + line("architecture", info.architecture);
  text += line("parameters", with_commas(info.parameters));
  text += line("weights", fmt::format("{} of a file of {}", bytes_text(static_cast<double>(info.weight_bytes)),
                                      bytes_text(static_cast<double>(info.file_bytes))));
  text += line("layers", std::to_string(info.layers));
  text += line("heads", fmt::format("{}, {} KV heads, {} elements each", info.heads, info.kv_heads, info.head_dim));
  text += line("embedding", with_commas(static_cast<std::uint64_t>(info.embedding)));
  text += line("feed forward", with_commas(static_cast<std::uint64_t>(info.feed_forward)));
  text += line("vocabulary", with_commas(static_cast<std::uint64_t>(info.vocabulary)));
  text += line("trained context", fmt::format("{} tokens", with_commas(static_cast<std::uint64_t>(info.context))));
  text += line("positions", info.rope_base > 0 ? fmt::format("RoPE, base {}", info.rope_base) : "learned");
  text += line("sliding window", windows_text(info));
  text += line("chat template", has_template ? "yes" : "no");
  for (const auto& [type, sum] : sum_types(info)) {
    text += line("tensors",
                 fmt::format("{:>4} of {:<5} {}", sum.tensors, type, bytes_text(static_cast<double>(sum.bytes))));
  }
  return text;
}

std::string cost_table(const Flags& flags, const ModelInfo& info, const Costs& costs) {
  std::vector<std::vector<std::string>> rows = {{"KV cache of one sequence", "tokens", "bytes"}};
  const auto add = [&](const char* label, std::int64_t tokens, std::uint64_t bytes) {
    rows.push_back({label, with_commas(static_cast<std::uint64_t>(tokens)), bytes_text(static_cast<double>(bytes))});
    if (flags.memory > 0) rows.back().push_back(with_commas(sequences(flags, info, bytes)));
  };
  if (flags.memory > 0)
    rows.front().push_back(fmt::format("sequences in {}", bytes_text(static_cast<double>(flags.memory))));
  add("full", costs.context, costs.full_bytes);
  add("with the budget", costs.budget, costs.bounded_bytes);
  return "\n" + aligned_table(rows);
}

void run(const Flags& flags) {
  const Budget budget = flags.budget.empty() ? Budget() : need(parse_budget(flags.budget), kWrongUsage);
  const ModelInfo info = need(inspect_model(flags.model));
  const auto tokenizer = Tokenizer::load(flags.model);
  const bool has_template = tokenizer && tokenizer->has_chat_template();
  const Costs costs = costs_of(flags, budget, info);
  Delivery(flags.output)
      .deliver(document_of(flags, info, costs, has_template),
               facts(info, has_template) + cost_table(flags, info, costs));
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = add_command(app, "inspect", "What is in a model's file, and what a budget costs",
                                  "a2sf inspect model.gguf --budget 512 --ctx 8192 --memory 8GiB");
  command->add_option("model", flags->model, "The model, a GGUF file")->type_name("FILE")->required();
  command
      ->add_option("--budget", flags->budget, "Tokens kept per layer and KV head: a count (1024) or a ratio of --ctx")
      ->type_name("B");
  command->add_option("--ctx", flags->context, "Length of a sequence; default: what the model was trained on")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40));
  command->add_option("--memory", flags->memory, "Memory for weights and caches: how many sequences fit (8GiB)")
      ->type_name("BYTES")
      ->transform(CLI::AsSizeValue(false));
  add_kv_type_flag(command, &flags->cache);
  add_json_flag(command, &flags->output);
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
