// Policy specs as text: parsing and printing.
#include <a2sf/hook.h>
#include <a2sf/policy.h>
#include <a2sf/profile.h>
#include <a2sf/token_classes.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "core/text_file.h"

namespace a2sf {
namespace {

tl::unexpected<Error> bad(std::string_view option, std::string_view value, std::string_view allowed) {
  return fail(ErrorKind::bad_input, fmt::format("{} '{}' is not {}", option, value, allowed));
}

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

Result<std::int64_t> parse_count(std::string_view option, std::string_view value, std::int64_t least) {
  const auto count = parse_number<std::int64_t>(value);
  if (!count || *count < least || *count > INT32_MAX) {
    return bad(option, value, fmt::format("a whole number of tokens from {} to {}", least, INT32_MAX));
  }
  return *count;
}

// "0.2" or "20%"; nothing if the text is not written as a ratio.
std::optional<double> parse_ratio(std::string_view value) {
  const bool percent = value.ends_with('%');
  if (!percent && value.find('.') == std::string_view::npos) return std::nullopt;
  const auto number = parse_number<double>(percent ? value.substr(0, value.size() - 1) : value);
  return number ? *number / (percent ? 100 : 1) : std::nan("");
}

// The shortest text that parse_ratio reads as this ratio: 0.07 times 100 is not 7, and the percentage of a few ratios
// is no double at all.
std::string ratio_text(double ratio) {
  for (int digits = 1; digits <= std::numeric_limits<double>::max_digits10; ++digits) {
    const auto percent = parse_number<double>(fmt::format("{:.{}g}", ratio * 100, digits));
    if (percent && *percent / 100 == ratio) return fmt::format("{}%", *percent);
  }
  return fmt::format("{:#}", ratio);
}

constexpr const char* kAll = "all";

// A count of tokens, or everything.
Result<std::int64_t> parse_budget_entry(std::string_view value) {
  if (value == kAll) return kKeepAll;
  return parse_count("budget", value, 1);
}

Result<BudgetTable> read_budget_table(const std::string& path) {
  const auto text = read_text_file(path, "budget table");
  if (!text) return tl::unexpected(text.error());
  const auto document = nlohmann::json::parse(*text, nullptr, false);
  BudgetTable table;
  const auto malformed = [&] {
    return fail(ErrorKind::bad_input,
                fmt::format("'{}' is no budget table; it should hold {{\"budgets\": [[count per KV head] per layer]}}, "
                            "counts from 1 or \"all\"",
                            path));
  };
  if (!document.is_object() || !document.contains("budgets") || !document["budgets"].is_array()) return malformed();
  for (const auto& layer : document["budgets"]) {
    if (!layer.is_array()) return malformed();
    auto& row = table.tokens.emplace_back();
    for (const auto& count : layer) {
      const bool is_all = count == kAll;
      if (!is_all && (!count.is_number_integer() || count < 1 || count > kKeepAll)) return malformed();
      row.push_back(is_all ? kKeepAll : count.get<std::int64_t>());
    }
  }
  if (table.tokens.empty()) return malformed();
  table.file = path;
  return table;
}

Status set_count(std::int64_t& field, std::string_view option, std::string_view value, std::int64_t least) {
  const auto count = parse_count(option, value, least);
  if (!count) return tl::unexpected(count.error());
  field = *count;
  return {};
}

Accumulate* accumulation_of(PolicySpec& spec) {
  if (auto* hooked = std::get_if<Hooked>(&spec.score)) return &hooked->accumulate;
  return std::get_if<Accumulate>(&spec.score);
}

Result<PolicySpec> spec_of_row(std::string_view name) {
  std::string names;
  for (PolicyRow& row : policies()) {
    if (row.spec.name == name) return std::move(row.spec);
    names += fmt::format("{}{}", names.empty() ? "" : ", ", row.spec.name);
  }
  return fail(ErrorKind::bad_input, fmt::format("'{}' is no policy; known are {}", name, names));
}

// ---- one function per option

// What a profile makes of a plan: its mean, which must be a count or a ratio.
Result<BudgetShares> shared_by(std::shared_ptr<const Profile> profile, const BudgetPlan& plan) {
  BudgetShares shares{.mean = {}, .profile = std::move(profile)};
  if (const auto* count = std::get_if<BudgetCount>(&plan.budget)) {
    shares.mean = *count;
  } else if (const auto* ratio = std::get_if<BudgetRatio>(&plan.budget)) {
    shares.mean = *ratio;
  } else if (const auto* before = std::get_if<BudgetShares>(&plan.budget)) {
    shares.mean = before->mean;
  } else {
    return fail(ErrorKind::bad_input, "a profile shares out a budget that is a count or a ratio, not a table");
  }
  return shares;
}

// A budget takes the place of the one before; a profile goes on sharing it out.
Status set_budget(PolicySpec& spec, std::string_view value) {
  auto plan = parse_budget(value);
  if (!plan) return tl::unexpected(plan.error());
  if (const auto* shares = std::get_if<BudgetShares>(&spec.budget.budget)) {
    auto shared = shared_by(shares->profile, *plan);
    if (!shared) return tl::unexpected(shared.error());
    plan->budget = std::move(*shared);
  }
  spec.budget.budget = std::move(plan->budget);
  return {};
}

template <class Value>
void take_over(Value& own, const Value& plain, const Value& tuned) {
  if (own == plain) own = tuned;
}

// The options that a profile was made for, each where the spec has the plain policy's.
Status take_over_options(PolicySpec& spec, const std::string& made_for) {
  // These read files: the profile's own would be read for ever.
  for (const char* option : {":profile=", ":budget=", ":classes=", ":model="}) {
    if (made_for.find(option) != std::string::npos)
      return fail(ErrorKind::bad_input,
                  "the profile's policy: it should name options of the score, sink, recent and layers");
  }
  const auto tuned = parse_policy(made_for);
  if (!tuned) return fail(tuned.error().kind, "the profile's policy: " + tuned.error().message);
  const auto plain = spec_of_row(spec.name);
  if (!plain || tuned->name != spec.name) return {};
  auto* own = std::get_if<Accumulate>(&spec.score);
  const auto *before = std::get_if<Accumulate>(&plain->score), *after = std::get_if<Accumulate>(&tuned->score);
  if (own == nullptr || before == nullptr || after == nullptr) return {};
  take_over(own->alpha, before->alpha, after->alpha);
  take_over(own->power, before->power, after->power);
  take_over(own->value_weight, before->value_weight, after->value_weight);
  if (spec.cold.tokens == 0) take_over(own->threshold, before->threshold, after->threshold);  // they do not go together
  take_over(spec.keep.sink, plain->keep.sink, tuned->keep.sink);
  take_over(spec.keep.recent, plain->keep.recent, tuned->keep.recent);
  take_over(spec.budget.layers, plain->budget.layers, tuned->budget.layers);
  return {};
}

Status set_profile(PolicySpec& spec, std::string_view value) {
  auto profile = read_profile(std::string(value));
  if (!profile) return tl::unexpected(profile.error());
  return share_by(spec, std::make_shared<const Profile>(std::move(*profile)));
}

// "2-29+31"
Status set_layers(PolicySpec& spec, std::string_view value) {
  std::vector<LayerRange> ranges;
  for (std::size_t begin = 0; begin <= value.size();) {
    const std::size_t end = std::min(value.find('+', begin), value.size());
    const std::string_view item = value.substr(begin, end - begin);
    const std::string_view first = item.substr(0, item.find('-'));
    const std::string_view last = first.size() == item.size() ? first : item.substr(first.size() + 1);
    const auto from = parse_number<int>(first), to = parse_number<int>(last);
    if (!from || !to || *from < 0 || *to < *from)
      return bad("layers", value, "layers and ranges of them, counted from 0, such as 2-29+31");
    ranges.push_back({*from, *to});
    begin = end + 1;
  }
  spec.budget.layers = std::move(ranges);
  return {};
}

Status set_alpha(PolicySpec& spec, std::string_view value) {
  Alpha alpha = AutoAlpha{};
  if (value != "auto") {
    const auto number = parse_number<double>(value);
    if (!number || !(*number >= 0 && *number <= 1)) return bad("alpha", value, "'auto' or a number from 0 to 1");
    alpha = *number;
  }
  if (Accumulate* accumulate = accumulation_of(spec)) accumulate->alpha = alpha;
  return {};
}

// Another way to say alpha.
Status set_memory(PolicySpec& spec, std::string_view value) {
  const auto memory = parse_number<double>(value);
  if (!memory || !(*memory > 0 && std::isfinite(*memory))) return bad("memory", value, "a number of budgets above 0");
  if (Accumulate* accumulate = accumulation_of(spec)) accumulate->alpha = AutoAlpha{*memory};
  return {};
}

Status set_power(PolicySpec& spec, std::string_view value) {
  const auto power = parse_number<double>(value);
  if (!power || (*power != 1 && *power != 1.5)) return bad("power", value, "1 or 1.5");
  if (Accumulate* accumulate = accumulation_of(spec)) accumulate->power = *power;
  return {};
}

// Of what the engine chooses by: a hook has its own choice.
Status set_value_weight(PolicySpec& spec, std::string_view value) {
  if (value != "on" && value != "off") return bad("value-weight", value, "on or off");
  if (auto* accumulate = std::get_if<Accumulate>(&spec.score)) accumulate->value_weight = value == "on";
  return {};
}

Status set_hook_option(PolicySpec& spec, std::string_view option, std::string_view value);

// What a hook calls so is its own.
Status set_threshold(PolicySpec& spec, std::string_view value) {
  if (std::holds_alternative<Hooked>(spec.score)) return set_hook_option(spec, "threshold", value);
  const auto threshold = parse_number<double>(value);
  if (!threshold || !(*threshold >= 0 && *threshold < 1))
    return bad("threshold", value, "a probability from 0 to below 1");
  if (auto* accumulate = std::get_if<Accumulate>(&spec.score)) accumulate->threshold = *threshold;
  return {};
}

Status set_classes(PolicySpec& spec, std::string_view value) {
  auto classes = read_token_classes(std::string(value));
  if (!classes) return tl::unexpected(classes.error());
  if (auto* accumulate = std::get_if<Accumulate>(&spec.score))
    accumulate->classes = std::make_shared<const TokenClasses>(std::move(*classes));
  return {};
}

Status set_sink(PolicySpec& spec, std::string_view value) {
  spec.keep.sink.yields = false;
  return set_count(spec.keep.sink.tokens, "sink", value, 0);
}

Status set_recent(PolicySpec& spec, std::string_view value) {
  if (const auto ratio = parse_ratio(value)) {
    if (!(*ratio >= 0 && *ratio <= 1)) return bad("recent", value, "a ratio of the budget from 0 to 1");
    spec.keep.recent = {.size = *ratio, .yields = false};
    return {};
  }
  const auto count = parse_count("recent", value, 0);
  if (!count) return tl::unexpected(count.error());
  spec.keep.recent = {.size = *count, .yields = false};
  return {};
}

Status set_block(PolicySpec& spec, std::string_view value) {
  if (value == "prompt") {
    spec.schedule = EvictAtPromptEnd{};
    return {};
  }
  EvictEvery every;
  auto set = set_count(every.block, "block", value, 1);
  if (set) spec.schedule = every;
  return set;
}

// Tokens leave for the cold tier a block at a time.
Status set_cold(PolicySpec& spec, std::string_view value) {
  constexpr std::int64_t kBlock = 16;
  const auto tokens = value == kAll ? Result<std::int64_t>(kKeepAll) : parse_count("cold", value, 0);
  if (!tokens) return bad("cold", value, fmt::format("'all' or a whole number of tokens from 0 to {}", INT32_MAX));
  if (!std::holds_alternative<Accumulate>(spec.score)) return {};
  spec.cold.tokens = *tokens;
  if (*tokens > 0 && spec.schedule == EvictionSchedule(EvictEvery{})) spec.schedule = EvictEvery{kBlock};
  return {};
}

Status set_recall(PolicySpec& spec, std::string_view value) {
  const auto recall = parse_count("recall", value, 1);
  if (!recall) return tl::unexpected(recall.error());
  if (std::holds_alternative<Accumulate>(spec.score)) spec.cold.recall = *recall;
  return {};
}

Status set_pin(PolicySpec& spec, std::string_view value) { return set_count(spec.keep.pin, "pin", value, 0); }

struct OptionRow {
  std::string_view name;
  Status (*set)(PolicySpec& spec, std::string_view value);
};
constexpr OptionRow kOptions[] = {
    {"alpha", set_alpha},   {"memory", set_memory},       {"power", set_power},     {"value-weight", set_value_weight},
    {"budget", set_budget}, {"layers", set_layers},       {"profile", set_profile}, {"sink", set_sink},
    {"recent", set_recent}, {"block", set_block},         {"pin", set_pin},         {"cold", set_cold},
    {"recall", set_recall}, {"threshold", set_threshold}, {"classes", set_classes}};

// An option that only a hook knows.
Status set_hook_option(PolicySpec& spec, std::string_view option, std::string_view value) {
  if (auto* hooked = std::get_if<Hooked>(&spec.score); hooked != nullptr && hooked->factory != nullptr) {
    auto factory = hooked->factory->with(option, value);
    if (!factory) return tl::unexpected(factory.error());
    hooked->factory = std::move(*factory);
    return {};
  }
  std::string names;
  for (const OptionRow& row : kOptions) names += fmt::format("{}{}", names.empty() ? "" : ", ", row.name);
  return fail(ErrorKind::bad_input, fmt::format("'{}' is no option of a policy; known are {}", option, names));
}

// ---- printing

// What a profile says of alpha needs no words; without one that is `auto`.
std::string alpha_text(const PolicySpec& spec, const Alpha& alpha) {
  if (const auto* number = std::get_if<double>(&alpha)) return fmt::format(":alpha={}", *number);
  const auto* automatic = std::get_if<AutoAlpha>(&alpha);
  if (automatic != nullptr && automatic->memory > 0) return fmt::format(":memory={}", automatic->memory);
  return automatic == nullptr && spec.profile() != nullptr ? "" : ":alpha=auto";
}

std::string mean_text(const BudgetCount& count) {
  return count.tokens == kKeepAll ? kAll : fmt::format("{}", count.tokens);
}
std::string mean_text(const BudgetRatio& budget) { return ratio_text(budget.ratio); }

std::string file_or_unnamed(const std::string& file) { return file.empty() ? "unnamed" : file; }

struct BudgetText {
  std::string operator()(const BudgetTable& table) const { return ":budget=@" + file_or_unnamed(table.file); }
  std::string operator()(const BudgetShares& shares) const {
    return ":budget=" + std::visit([](const auto& mean) { return mean_text(mean); }, shares.mean) +
           ":profile=" + file_or_unnamed(shares.profile == nullptr ? "" : shares.profile->file);
  }
  template <class Mean>
  std::string operator()(const Mean& mean) const {
    return ":budget=" + mean_text(mean);
  }
};

std::string layers_text(const std::vector<LayerRange>& ranges) {
  std::string text;
  for (const LayerRange& range : ranges) {
    text += fmt::format("{}{}", text.empty() ? ":layers=" : "+", range.first);
    if (range.last != range.first) text += fmt::format("-{}", range.last);
  }
  return text;
}

std::string recent_text(const RecentTokens& recent) {
  if (const auto* count = std::get_if<std::int64_t>(&recent.size)) return fmt::format(":recent={}", *count);
  return ":recent=" + ratio_text(std::get<double>(recent.size));
}

std::string cold_text(const ColdTier& cold) {
  std::string text;
  if (cold.tokens > 0) text = cold.tokens == kKeepAll ? ":cold=all" : fmt::format(":cold={}", cold.tokens);
  if (cold.recall != ColdTier().recall) text += fmt::format(":recall={}", cold.recall);
  return text;
}

std::string schedule_text(const EvictionSchedule& schedule) {
  if (const auto* every = std::get_if<EvictEvery>(&schedule)) return fmt::format(":block={}", every->block);
  return ":block=prompt";
}

}  // namespace

Result<BudgetPlan> parse_budget(std::string_view text) {
  BudgetPlan plan;
  if (text.starts_with('@')) {
    auto table = read_budget_table(std::string(text.substr(1)));
    if (!table) return tl::unexpected(table.error());
    plan.budget = std::move(*table);
  } else if (const auto ratio = parse_ratio(text)) {
    if (!(*ratio > 0 && *ratio <= 1)) return bad("budget", text, "a ratio above 0 and up to 1 (or 100%)");
    plan.budget = BudgetRatio{*ratio};
  } else {
    const auto count = parse_budget_entry(text);
    if (!count) return tl::unexpected(count.error());
    plan.budget = BudgetCount{*count};
  }
  return plan;
}

Status share_by(PolicySpec& spec, std::shared_ptr<const Profile> profile) {
  const std::string made_for = profile == nullptr ? "" : profile->policy;
  auto shared = shared_by(std::move(profile), spec.budget);
  if (!shared) return tl::unexpected(shared.error());
  spec.budget.budget = std::move(*shared);
  return made_for.empty() ? Status() : take_over_options(spec, made_for);
}

Status set_option(PolicySpec& spec, std::string_view option, std::string_view value) {
  for (const OptionRow& row : kOptions) {
    if (row.name == option) return row.set(spec, value);
  }
  return set_hook_option(spec, option, value);
}

Result<PolicySpec> parse_policy(std::string_view text, std::span<const PolicyOption> common) {
  const std::string_view name = text.substr(0, text.find(':'));
  auto spec = spec_of_row(name);
  if (!spec) return spec;
  for (const PolicyOption& option : common) {
    if (auto set = set_option(*spec, option.name, option.value); !set) return tl::unexpected(set.error());
  }
  for (std::string_view rest = text.substr(name.size()); !rest.empty();) {
    rest.remove_prefix(1);
    const std::string_view item = rest.substr(0, rest.find(':'));
    rest.remove_prefix(item.size());
    const std::size_t equals = item.find('=');
    if (equals == std::string_view::npos) {
      return fail(ErrorKind::bad_input, fmt::format("'{}' in policy '{}' is not of the form option=value", item, text));
    }
    if (auto set = set_option(*spec, item.substr(0, equals), item.substr(equals + 1)); !set)
      return tl::unexpected(set.error());
  }
  return spec;
}

std::string to_string(const PolicySpec& spec) {
  std::string text = spec.name;
  if (spec.keeps_all()) return text;
  const PolicySpec own = spec_of_row(spec.name).value_or(PolicySpec{});
  const Accumulate *accumulate = spec.accumulates(), *by_itself = own.accumulates();
  const Accumulate standard = by_itself == nullptr ? Accumulate{} : *by_itself;
  if (accumulate != nullptr) {
    const std::string alpha = alpha_text(spec, accumulate->alpha);
    if (alpha != alpha_text(spec, standard.alpha)) text += alpha;
  }
  if (accumulate != nullptr && accumulate->power != standard.power) text += fmt::format(":power={}", accumulate->power);
  if (accumulate != nullptr && accumulate->value_weight != standard.value_weight)
    text += accumulate->value_weight ? ":value-weight=on" : ":value-weight=off";
  if (accumulate != nullptr && accumulate->threshold != standard.threshold)
    text += fmt::format(":threshold={}", accumulate->threshold);
  if (accumulate != nullptr && accumulate->classes != standard.classes && accumulate->classes != nullptr)
    text += ":classes=" + file_or_unnamed(accumulate->classes->file);
  text += std::visit(BudgetText(), spec.budget.budget);
  text += layers_text(spec.budget.layers);
  if (spec.keep.sink != own.keep.sink) text += fmt::format(":sink={}", spec.keep.sink.tokens);
  if (spec.keep.recent != own.keep.recent) text += recent_text(spec.keep.recent);
  text += cold_text(spec.cold);
  PolicySpec plain = own;
  if (spec.cold.tokens > 0) set_cold(plain, kAll);
  if (spec.schedule != plain.schedule) text += schedule_text(spec.schedule);
  if (spec.keep.pin != own.keep.pin) text += fmt::format(":pin={}", spec.keep.pin);
  if (const auto* hooked = std::get_if<Hooked>(&spec.score); hooked != nullptr && hooked->factory != nullptr)
    text += hooked->factory->options();
  return text;
}

}  // namespace a2sf
