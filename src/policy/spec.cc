// Policy specs as text: the table of policies, parsing and printing.
#include <a2sf/hook.h>
#include <a2sf/policy.h>
#include <a2sf/profile.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "core/text_file.h"

namespace a2sf {
namespace {

constexpr std::array kPolicies = {
    PolicyInfo{Policy::full, "full", "-", "-", "-", "nothing is evicted; the reference"},
    PolicyInfo{Policy::local, "local", "-", "0", "the budget", "sliding window: the newest tokens"},
    PolicyInfo{Policy::streaming, "streaming", "-", "4", "the rest", "StreamingLLM: the first tokens and the newest"},
    PolicyInfo{Policy::h2o, "h2o", "1", "0", "half the budget", "heavy hitters: plain accumulated attention"},
    PolicyInfo{Policy::tova, "tova", "0", "0", "0", "only the last query counts"},
    PolicyInfo{Policy::a2sf, "a2sf", "auto", "0", "half the budget", "accumulated attention with a forgetting factor"},
    PolicyInfo{Policy::ideal, "ideal", "-", "-", "-",
               "oracle: each row sees its most attended tokens; saves no memory"},
    PolicyInfo{Policy::hook, "shared-budget", "auto", "0", "half the share",
               "example hook: the heads of a layer share their budget"},
};

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

Result<Budget> read_budget_table(const std::string& path) {
  const auto text = read_text_file(path, "budget table");
  if (!text) return tl::unexpected(text.error());
  const auto document = nlohmann::json::parse(*text, nullptr, false);
  Budget budget;
  const auto malformed = [&] {
    return fail(
        ErrorKind::bad_input,
        fmt::format(
            "'{}' is no budget table; it should hold {{\"budgets\": [[count per KV head] per layer]}}, counts from 1",
            path));
  };
  if (!document.is_object() || !document.contains("budgets") || !document["budgets"].is_array()) return malformed();
  for (const auto& layer : document["budgets"]) {
    if (!layer.is_array()) return malformed();
    auto& row = budget.table.emplace_back();
    for (const auto& count : layer) {
      if (!count.is_number_integer() || count < 1 || count > INT32_MAX) return malformed();
      row.push_back(count.get<std::int64_t>());
    }
  }
  if (budget.table.empty()) return malformed();
  budget.file = path;
  return budget;
}

Result<RecentWindow> parse_recent(std::string_view value) {
  if (const auto ratio = parse_ratio(value)) {
    if (!(*ratio >= 0 && *ratio <= 1)) return bad("recent", value, "a ratio of the budget from 0 to 1");
    return RecentWindow{0, *ratio};
  }
  const auto count = parse_count("recent", value, 0);
  if (!count) return tl::unexpected(count.error());
  return RecentWindow{*count, 0};
}

Status set_count(std::int64_t& field, std::string_view option, std::string_view value, std::int64_t least) {
  const auto count = parse_count(option, value, least);
  if (!count) return tl::unexpected(count.error());
  field = *count;
  return {};
}

Status set_alpha(PolicySpec& spec, std::string_view value) {
  spec.auto_alpha = value == "auto";
  if (spec.auto_alpha) {
    spec.alpha.reset();
    return {};
  }
  const auto alpha = parse_number<double>(value);
  if (!alpha || !(*alpha >= 0 && *alpha <= 1)) return bad("alpha", value, "'auto' or a number from 0 to 1");
  spec.alpha = *alpha;
  return {};
}

}  // namespace

std::span<const PolicyInfo> policies() { return kPolicies; }

std::string_view name_of(Policy policy) {
  for (const PolicyInfo& info : kPolicies) {
    if (info.policy == policy) return info.name;
  }
  return "?";
}

Result<Budget> parse_budget(std::string_view text) {
  if (text.starts_with('@')) return read_budget_table(std::string(text.substr(1)));
  Budget budget;
  if (const auto ratio = parse_ratio(text)) {
    if (!(*ratio > 0 && *ratio <= 1)) return bad("budget", text, "a ratio above 0 and up to 1 (or 100%)");
    budget.ratio = *ratio;
    return budget;
  }
  const auto count = parse_count("budget", text, 1);
  if (!count) return tl::unexpected(count.error());
  budget.count = *count;
  return budget;
}

Status set_option(PolicySpec& spec, std::string_view option, std::string_view value) {
  if (option == "alpha") return set_alpha(spec, value);
  if (option == "pin") return set_count(spec.pin, option, value, 0);
  if (option == "budget") {
    auto budget = parse_budget(value);
    if (!budget) return tl::unexpected(budget.error());
    spec.budget = std::move(*budget);
    return {};
  }
  if (option == "profile") {
    auto profile = read_profile(std::string(value));
    if (!profile) return tl::unexpected(profile.error());
    spec.profile = std::make_shared<const Profile>(std::move(*profile));
    return {};
  }
  if (option == "sink") {
    std::int64_t sink = 0;
    if (auto set = set_count(sink, option, value, 0); !set) return set;
    spec.sink = sink;
    return {};
  }
  if (option == "recent") {
    const auto recent = parse_recent(value);
    if (!recent) return tl::unexpected(recent.error());
    spec.recent = *recent;
    return {};
  }
  if (option == "block") {
    spec.whole_prompt = value == "prompt";
    spec.block = 1;
    return spec.whole_prompt ? Status{} : set_count(spec.block, option, value, 1);
  }
  return fail(
      ErrorKind::bad_input,
      fmt::format("'{}' is no option of a policy; known are alpha, budget, profile, sink, recent, block, pin", option));
}

Result<PolicySpec> parse_policy(std::string_view text, const PolicySpec& defaults) {
  PolicySpec spec = defaults;
  const std::string_view name = text.substr(0, text.find(':'));
  bool known = false;
  for (const PolicyInfo& info : kPolicies) {
    if (info.name != name) continue;
    spec.policy = info.policy;
    known = true;
  }
  if (!known) {
    std::string names;
    for (const PolicyInfo& info : kPolicies) names += fmt::format("{}{}", names.empty() ? "" : ", ", info.name);
    return fail(ErrorKind::bad_input, fmt::format("'{}' is no policy; known are {}", name, names));
  }
  if (spec.policy == Policy::hook && !spec.hook) spec.hook = std::make_shared<SharedBudget>();
  for (std::string_view rest = text.substr(name.size()); !rest.empty();) {
    rest.remove_prefix(1);
    const std::string_view item = rest.substr(0, rest.find(':'));
    rest.remove_prefix(item.size());
    const std::size_t equals = item.find('=');
    if (equals == std::string_view::npos) {
      return fail(ErrorKind::bad_input, fmt::format("'{}' in policy '{}' is not of the form option=value", item, text));
    }
    if (auto set = set_option(spec, item.substr(0, equals), item.substr(equals + 1)); !set)
      return tl::unexpected(set.error());
  }
  return spec;
}

std::string to_string(const PolicySpec& spec) {
  std::string text{spec.hook ? spec.hook->name() : name_of(spec.policy)};
  if (spec.policy == Policy::full) return text;
  if (spec.alpha) text += fmt::format(":alpha={}", *spec.alpha);
  if (spec.auto_alpha && spec.profile) text += ":alpha=auto";
  if (!spec.budget.table.empty()) {
    text += ":budget=@" + (spec.budget.file.empty() ? "unnamed" : spec.budget.file);
  } else if (spec.budget.ratio > 0) {
    text += ":budget=" + ratio_text(spec.budget.ratio);
  } else {
    text += fmt::format(":budget={}", spec.budget.count);
  }
  if (spec.profile) text += fmt::format(":profile={}", spec.profile->file.empty() ? "unnamed" : spec.profile->file);
  if (spec.sink) text += fmt::format(":sink={}", *spec.sink);
  if (spec.recent) {
    text += spec.recent->ratio > 0 ? ":recent=" + ratio_text(spec.recent->ratio)
                                   : fmt::format(":recent={}", spec.recent->count);
  }
  if (spec.whole_prompt) {
    text += ":block=prompt";
  } else if (spec.block != 1) {
    text += fmt::format(":block={}", spec.block);
  }
  if (spec.pin > 0) text += fmt::format(":pin={}", spec.pin);
  return text;
}

}  // namespace a2sf
