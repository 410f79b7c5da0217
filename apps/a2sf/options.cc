#include "options.h"

#include "auto_profile.h"
#include "idle_options.h"
#include "model_names.h"
#include "outcome.h"
#include "tables.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <random>
#include <utility>
#include <variant>

namespace a2sf::app {
namespace {

std::string without_blanks(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t"), last = text.find_last_not_of(" \t");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

// A check of a number that also refuses NaN and infinity.
CLI::Validator number_in(double least, bool least_allowed, double most, const char* allowed) {
  return CLI::Validator(
      [=](std::string& text) {
        double value = 0;
        const bool valid = CLI::detail::lexical_cast(text, value) && std::isfinite(value) && value <= most &&
                           (least_allowed ? value >= least : value > least);
        return valid ? std::string() : fmt::format("{} is not allowed: {}", text, allowed);
      },
      "");
}

void add_text_option(CLI::App* command, const char* name, std::string* value, const char* help, const char* type) {
  command->add_option(name, *value, help)->type_name(type);
}

// A text option whose value means something: an empty one is wrong usage. `standard` is what holds without it.
void add_value(CLI::App* command, const char* name, std::string* value, const char* help, const char* type,
               const char* standard) {
  command->add_option(name, *value, help)->type_name(type)->default_str(standard)->check([](const std::string& text) {
    return text.empty() ? "the value is empty" : "";
  });
}

void add_profile_flag(CLI::App* command, CacheFlags* flags) {
  add_value(
      command, "--profile", &flags->profile,
      "Share the budget out over the heads, which need unlike parts of it, by a profile that a2sf tune has measured: a "
      "file, or auto: MODEL.a2sf.json beside the model, else what is shipped for it, or what is shipped for it and a "
      "kind "
      "of text: code, dialogue, mathematics, prose; the budget is then the mean of all heads",
      "P", flags->standard_profile);
}

// What this build computes on.
CLI::Validator is_device() {
  return {[](std::string& device) {
            const bool is_known = device == "cpu" || device == "cuda" || device == "reference";
            return is_known ? "" : device + " is not cpu, cuda or reference";
          },
          ""};
}

// The number that was written: 0.7, where a float as a double is 0.699999988079071.
double as_written(float number) { return std::strtod(fmt::format("{}", number).c_str(), nullptr); }

// Refuses counts that do not fit the budget before a model is loaded; the first head of a table stands for all. Where
// all have one budget, a hook may give the last layer the least of it: the last of two stands for that of any model.
void check_fit(const PolicySpec& spec) {
  const std::int64_t length = spec.has_ratio() ? kAnyLength : 0;
  need(resolve(spec, bounded_layer(spec), 0, 0, length, 0), kWrongUsage);
  const bool is_even = spec.budget.layers.empty() && spec.budget_table() == nullptr && spec.profile() == nullptr;
  if (is_even) need(resolve(spec, 1, 2, 0, length, 0), kWrongUsage);
}

void warn_of_freezing(const PolicySpec& spec) {
  if (spec.has_ratio()) return;
  const HeadRule rule = need(resolve(spec, bounded_layer(spec), 0, 0, 0, 0), kWrongUsage);
  const bool remembers_longer = rule.alpha >= 1 || 1 / (1 - rule.alpha) > static_cast<double>(rule.budget);
  if (rule.mode == RetentionMode::score && rule.recent == 0 && remembers_longer) {
    warn(fmt::format(
        "alpha={} without a recent window remembers longer than the budget of {}: new tokens go at once and "
        "the cache freezes on the first ones; use {} or a smaller alpha",
        std::holds_alternative<double>(spec.accumulates()->alpha) ? fmt::format("{}", rule.alpha) : "auto", rule.budget,
        rule.budget > 1 ? "--recent 0.5" : "a larger budget"));
  }
}

}  // namespace

CLI::App* add_command(CLI::App& app, const char* name, const char* description, const char* example) {
  CLI::App* command = app.add_subcommand(name, description);
  command->footer(fmt::format("Example:\n  {}", example));
  command->get_help_ptr()->group(kLastHeading);
  command->set_version_flag("--version", fmt::format("a2sf {}", version()), "Print the version")->group(kLastHeading);
  return command;
}

CLI::Option* add_model_file(CLI::App* command, std::string* file) {
  return command
      ->add_option("-m,--model,model", *file,
                   "The model: a GGUF file, or the name of one that tools/fetch keeps (smollm2-135m); also without -m")
      ->type_name("FILE")
      ->transform(CLI::Validator(
          [](std::string& text) {
            text = model_file(text);
            return std::string();
          },
          ""))
      ->required();
}

CLI::Option* add_model_flags(CLI::App* command, ModelFlags* flags) {
  CLI::Option* file = add_model_file(command, &flags->model);
  const Heading heading(command, "Machine");
  command
      ->add_option("-t,--threads", flags->threads, "Threads to compute with; 0: as many as the process may keep busy")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  command->add_option("--device", flags->device, "What computes: cpu, cuda, or reference, the plain definition, slow")
      ->type_name("NAME")
      ->capture_default_str()
      ->check(is_device());
  command->add_option("--repack", flags->repack, "on: regroup the weights for speed; off: use them as they are mapped")
      ->type_name("on|off")
      ->capture_default_str()
      ->check(CLI::IsMember({"on", "off"}));
  return file;
}

void add_json_flag(CLI::App* command, OutputFlags* flags) {
  command->add_flag("--json", flags->json, "Print one JSON document instead of text")->group(kLastHeading);
}

void add_output_file(CLI::App* command, OutputFlags* flags) {
  const auto take = [flags](const std::string& file) {
    if (file.empty()) throw CLI::ValidationError("--output", "the value is empty");
    flags->json = flags->json || file == "-";
    flags->file = file == "-" ? "" : file;
  };
  command
      ->add_option_function<std::string>("-o,--output", take,
                                         "Also write the JSON document to a file; -: print it instead of text")
      ->type_name("FILE")
      ->group(kLastHeading);
}

void add_cache_flags(CLI::App* command, CacheFlags* flags, bool pick) {
  const Heading heading(command, kCacheHeading);
  if (pick) {
    add_value(command, "--policy", &flags->policy,
              "What stays, with options if wanted: a2sf:alpha=0.9:sink=4 (see: a2sf policies)", "P", "a2sf");
    add_budget_flags(command, flags);
  } else {
    add_profile_flag(command, flags);
  }
  add_value(command, "--alpha", &flags->alpha, "Forgetting factor, 0 to 1, or auto", "A", "the policy's");
  add_value(command, "--power", &flags->power, "What a row adds to a score: p to this power, 1 or 1.5", "P", "1");
  add_value(command, "--value-weight", &flags->value_weight,
            "on: scores are weighed by how far a token's value lies from the mean, which needs a sink; or off", "W",
            "off");
  add_value(command, "--sink", &flags->sink, "First tokens that always stay", "N", "the policy's");
  add_value(command, "--recent", &flags->recent, "Newest tokens that always stay: a count, or a ratio of the budget",
            "N", "the policy's");
  add_value(command, "--block", &flags->block, "Evict every N tokens; prompt: once, at the end of the prompt", "N",
            "1, with --cold 16");
  add_value(command, "--pin", &flags->pin, "First tokens that are never evicted, part of the budget", "N", "0");
  add_value(command, "--cold", &flags->cold,
            "Keep so many evicted tokens per KV head outside attention's reach, and bring back what tokens to come "
            "ask for: a count, or all",
            "N", "0");
  add_value(command, "--recall", &flags->recall, "With --cold: at most so many come back at once", "N", "32");
  add_kv_type_flag(command, flags);
}

void add_budget_flags(CLI::App* command, CacheFlags* flags) {
  const Heading heading(command, kCacheHeading);
  add_value(command, "--budget", &flags->budget,
            "Tokens kept per layer and KV head: a count, a ratio of the sequence (0.2 or 20%), all, or @FILE, a JSON "
            "table by layer and KV head: {\"budgets\": [[64, 32], [16, \"all\"]]}",
            "B", "1024");
  add_profile_flag(command, flags);
}

void add_kv_type_flag(CLI::App* command, CacheFlags* flags) {
  const Heading heading(command, kCacheHeading);
  command->add_option("--kv-type", flags->kv_type, "Format of keys and values")
      ->type_name("f16|f32")
      ->capture_default_str()
      ->check(CLI::IsMember({"f16", "f32"}));
}

void add_sampling_flags(CLI::App* command, SamplingFlags* flags) {
  const Heading heading(command, "Sampling");
  constexpr double kMost = 1e6;
  constexpr std::int64_t kRandomSeed = -1;
  SamplerOptions& options = flags->options;
  command->add_option("--temp,--temperature", options.temperature, "Temperature; 0: always the likeliest token")
      ->capture_default_str()
      ->check(number_in(0, true, kMost, "a temperature is 0 or more"));
  command->add_option("--top-k", options.top_k, "Sample from the K likeliest tokens; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 30));
  command->add_option("--top-p", options.top_p, "Sample from the likeliest tokens of this probability together")
      ->capture_default_str()
      ->check(number_in(0, false, 1, "top-p is above 0 and at most 1"));
  command->add_option("--min-p", options.min_p, "Leave out tokens below this share of the likeliest one's")
      ->capture_default_str()
      ->check(number_in(0, true, 1, "min-p is 0 to 1"));
  command->add_option("--repeat-penalty", options.repeat_penalty, "Penalty of repeated tokens; 1: none")
      ->capture_default_str()
      ->check(number_in(0, false, kMost, "a penalty is above 0"));
  const auto set_seed = [&options](std::int64_t seed) {
    options.seed = seed == kRandomSeed ? std::random_device()() : static_cast<std::uint32_t>(seed);
  };
  command->add_option_function<std::int64_t>("-s,--seed", set_seed, "Seed of sampling; -1: another one every time")
      ->type_name("N")
      ->default_str("0")
      ->check(CLI::Range(kRandomSeed, std::int64_t{std::numeric_limits<std::uint32_t>::max()}));
  command->add_option("--stop", flags->stop, "Text that ends the generation; may be given several times")
      ->type_name("TEXT")
      ->allow_extra_args(false);
}

Json sampling_json(const SamplingFlags& flags) {
  const SamplerOptions& options = flags.options;
  return {{"temperature", as_written(options.temperature)},
          {"top_k", options.top_k},
          {"top_p", as_written(options.top_p)},
          {"min_p", as_written(options.min_p)},
          {"repeat_penalty", as_written(options.repeat_penalty)},
          {"seed", options.seed},
          {"stop", flags.stop}};
}

void add_text_flags(CLI::App* command, TextFlags* flags) {
  add_text_option(command, "-f,--file", &flags->file, "The text; -: standard input", "FILE");
  command->get_option("--file")->required();
  command->add_option("--tokens", flags->tokens, "Only the first N tokens of the text")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 30));
}

namespace {

bool names_file(const std::string& profile) { return profile != "auto" && profile != "none" && !names_domain(profile); }

}  // namespace

std::vector<PolicyOption> given_options(const CacheFlags& flags) {
  std::vector<PolicyOption> options = {{"budget", flags.budget},
                                       {"profile", names_file(flags.profile) ? flags.profile : ""},
                                       {"alpha", flags.alpha},
                                       {"power", flags.power},
                                       {"value-weight", flags.value_weight},
                                       {"sink", flags.sink},
                                       {"recent", flags.recent},
                                       {"block", flags.block},
                                       {"pin", flags.pin},
                                       {"cold", flags.cold},
                                       {"recall", flags.recall}};
  std::erase_if(options, [](const PolicyOption& option) { return option.value.empty(); });
  return options;
}

PolicySpec read_policy(const std::string& text, const CacheFlags& flags) {
  PolicySpec spec = need(parse_policy(text, given_options(flags)), kWrongUsage);
  check_fit(spec);
  warn_of_freezing(spec);
  return spec;
}

PolicySpec spec_of(const CacheFlags& flags) {
  const TypedPolicy policy{flags.policy, read_policy(flags.policy, flags)};
  warn_of_idle_options(flags, {&policy, 1});
  return policy.spec;
}

KvType kv_type_of(const CacheFlags& flags) { return flags.kv_type == "f32" ? KvType::f32 : KvType::f16; }

ModelOptions model_options(const ModelFlags& flags) {
  return {.threads = flags.threads, .device = flags.device, .repack = flags.repack == "on", .isa = ""};
}

std::shared_ptr<const Model> load_model(const ModelFlags& flags) {
  return need(Model::load(flags.model, model_options(flags)));
}

std::string text_name(const std::string& file) { return file == "-" ? "standard input" : file; }

TunedText tuned_text(const std::string& file, const std::string& hash) {
  return {file == "-" ? text_name(file) : std::filesystem::path(file).filename().string(), hash};
}

std::string read_text(const std::string& file) {
  std::string text = read_file(file);
  if (text.empty()) fail_with(kFailed, fmt::format("{} is empty", text_name(file)));
  if (const auto wrong = find_invalid_utf8(text)) {
    fail_with(kFailed,
              fmt::format("{} is not valid UTF-8: the first wrong byte is at offset {}", text_name(file), *wrong));
  }
  return text;
}

TokenText read_tokens(const TextFlags& flags, const Tokenizer& tokenizer) {
  const std::string text = read_text(flags.file);
  std::vector<Token> tokens = need(tokenizer.encode(text, true, false));
  if (tokens.size() < flags.tokens) {
    warn(fmt::format("{} has only {}, fewer than --tokens {}", text_name(flags.file), counted(tokens.size(), "token"),
                     flags.tokens));
  }
  if (flags.tokens > 0 && tokens.size() > flags.tokens) tokens.resize(flags.tokens);
  return {std::move(tokens), text_hash(text)};
}

void warn_past_context(const ModelInfo& info, std::size_t tokens) {
  if (info.context <= 0 || tokens <= static_cast<std::size_t>(info.context)) return;
  warn(fmt::format("{} tokens are more than the {} that the model was trained on", tokens, info.context));
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> items;
  std::size_t begin = 0;
  while (true) {
    const std::size_t comma = text.find(',', begin);
    items.push_back(without_blanks(text.substr(begin, comma - begin)));
    if (comma == std::string::npos) return items;
    begin = comma + 1;
  }
}

std::size_t read_number(const std::string& option, const std::string& text, std::size_t least) {
  constexpr std::size_t kMost = 1 << 30;
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size() && number >= least && number <= kMost) return number;
  fail_with(kWrongUsage, fmt::format("{}: '{}' is not a whole number from {} to {}", option, text, least, kMost));
}

std::vector<std::size_t> read_numbers(const std::string& option, const std::string& text, std::size_t least) {
  std::vector<std::size_t> numbers;
  for (const std::string& item : split_list(text)) numbers.push_back(read_number(option, item, least));
  return numbers;
}

Json new_document(const char* command, const Model& model, const ModelFlags& flags) {
  return {{"command", command},
          {"version", version()},
          {"model", model.info().path},
          {"model_hash", model.info().hash},
          {"threads", model.threads()},
          {"isa", model.isa()},
          {"repack", flags.repack == "on"}};
}

namespace {

Json mean_json(const BudgetCount& count) { return count.tokens == kKeepAll ? Json("all") : Json(count.tokens); }
Json mean_json(const BudgetRatio& budget) { return budget.ratio; }
Json mean_json(const BudgetShares& shares) {
  return std::visit([](const auto& mean) { return mean_json(mean); }, shares.mean);
}
Json mean_json(const BudgetTable& table) {
  double sum = 0, count = 0;
  for (const auto& layer : table.tokens) {
    for (const std::int64_t budget : layer) {
      if (budget == kKeepAll) continue;
      sum += static_cast<double>(budget);
      ++count;
    }
  }
  return count == 0 ? Json("all") : Json(sum / count);
}

}  // namespace

Json budget_json(const PolicySpec& spec) {
  if (spec.keeps_all()) return nullptr;
  return std::visit([](const auto& plan) { return mean_json(plan); }, spec.budget.budget);
}

Json policy_json(const PolicySpec& spec) {
  Json json = {{"policy", spec.name},
               {"spec", to_string(spec)},
               {"budget", budget_json(spec)},
               {"budget_table", nullptr},
               {"profile", nullptr}};
  if (spec.keeps_all()) return json;
  if (const BudgetTable* table = spec.budget_table())
    json["budget_table"] = {{"file", table->file}, {"hash", hash_of_table(table->tokens)}};
  if (const Profile* profile = spec.profile())
    json["profile"] = {{"file", profile->file}, {"hash", hash_of_profile(*profile)}};
  if (const auto* hooked = std::get_if<Hooked>(&spec.score); hooked != nullptr && !hooked->factory->file_text().empty())
    json["hook_file"] = {{"hash", text_hash(hooked->factory->file_text())}};
  const Accumulate* accumulate = spec.accumulates();
  if (accumulate != nullptr && accumulate->classes != nullptr)
    json["token_classes"] = {{"file", accumulate->classes->file}, {"hash", text_hash(to_json(*accumulate->classes))}};
  return json;
}

// All that a document may hold raw of what a terminal obeys, DEL and C1 (C2 80 to C2 9F), is in its strings.
std::string dump(const Json& document, int indent) {
  const std::string text = document.dump(indent, ' ', false, Json::error_handler_t::replace);
  std::string harmless;
  harmless.reserve(text.size() + 1);
  for (std::size_t at = 0; at < text.size(); ++at) {
    const bool c1 = text[at] == '\xc2' && static_cast<unsigned char>(text[at + 1]) < 0xa0;
    if (c1) ++at;
    if (c1 || text[at] == '\x7f') {
      harmless += fmt::format("\\u{:04x}", static_cast<unsigned char>(text[at]));
    } else {
      harmless += text[at];
    }
  }
  return harmless + "\n";
}

Delivery::Delivery(const OutputFlags& flags) : json_(flags.json) {
  if (!flags.file.empty()) file_.emplace(flags.file);
}

void Delivery::deliver(const Json& document, const std::string& for_people) {
  if (file_) {
    file_->write(dump(document, 2));
    file_->commit();
  }
  print(json_ ? dump(document, 2) : for_people);
  flush_output();
}

}  // namespace a2sf::app
