// The table of policies: one row each.
#include <a2sf/hook.h>
#include <a2sf/policy.h>
#include <a2sf/profile.h>
#include <a2sf/token_classes.h>

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "policy/hooks/hooks.h"

namespace a2sf {
namespace {

constexpr RecentTokens kHalf{.size = 0.5, .yields = true}, kAllOfIt{.size = 1.0, .yields = true};

PolicyRow row(const char* name, ScoreRule score, KeepRule keep, const char* alpha, const char* sink, const char* recent,
              const char* summary) {
  return {{.name = name, .budget = {}, .score = std::move(score), .keep = keep, .schedule = {}},
          alpha,
          sink,
          recent,
          summary};
}

PolicyRow hook_row(std::shared_ptr<const HookFactory> factory, const char* summary, std::int64_t block = 1) {
  const std::string name(factory->name());
  PolicyRow row_of_hook = row(name.c_str(), Hooked{std::move(factory), {}}, {.sink = {}, .recent = kHalf}, "auto", "0",
                              "half the budget", summary);
  row_of_hook.spec.schedule = EvictEvery{block};
  return row_of_hook;
}

// A published rule that cuts once at the end of a prompt, as kvpress has it. A keep rule that was published with it
// yields where the budget is too small.
PolicyRow prompt_row(std::shared_ptr<const HookFactory> factory, std::int64_t sink, std::int64_t recent,
                     const char* summary) {
  const std::string name(factory->name());
  const KeepRule keep{.sink = {.tokens = sink, .yields = true}, .recent = {.size = recent, .yields = true}};
  PolicyRow published =
      row(name.c_str(), Hooked{std::move(factory), Accumulate{.alpha = 0.0}}, keep, "-", "", "", summary);
  published.sink = fmt::format("{}", sink);
  published.recent = fmt::format("{}", recent);
  published.spec.schedule = EvictAtPromptEnd{};
  return published;
}

// Hooks that read or sort all tokens of a head do so once in sixteen rows.
constexpr std::int64_t kReadingBlock = 16;

// Where the keep rule leaves one token to choose, its score decides nothing.
Accumulate last_row() { return Accumulate{.alpha = 0.0}; }

// Classes that are still to be given.
Accumulate by_class() {
  Accumulate accumulate;
  accumulate.classes = std::make_shared<const TokenClasses>();
  return accumulate;
}

std::vector<PolicyRow> built_in_rows() {
  return {
      row("full", NoScore{}, {}, "-", "-", "-", "nothing is evicted; the reference"),
      row("local", last_row(), {.sink = {}, .recent = kAllOfIt}, "-", "0", "the budget",
          "sliding window: the newest tokens"),
      row("streaming", last_row(), {.sink = {.tokens = 4, .yields = true}, .recent = kAllOfIt}, "-", "4", "the rest",
          "StreamingLLM: the first tokens and the newest"),
      row("h2o", Accumulate{.alpha = 1.0}, {.sink = {}, .recent = kHalf}, "1", "0", "half the budget",
          "heavy hitters: plain accumulated attention"),
      row("tova", last_row(), {}, "0", "0", "0", "only the last query counts"),
      row("a2sf", Accumulate{}, {.sink = {}, .recent = kHalf}, "auto", "0", "half the budget",
          "accumulated attention with a forgetting factor"),
      row("token-class", by_class(), {.sink = {}, .recent = kHalf}, "auto", "0", "half the budget",
          "a2sf; a token's class says how long it is remembered (classes=FILE)"),
      row("ideal", Oracle{}, {}, "-", "-", "-", "oracle: each row sees its most attended tokens; saves no memory"),
      hook_row(shared_budget(), "example hook: the heads of a layer share their budgets"),
      prompt_row(snapkv(), 0, 32, "what a prompt's last 32 rows attend to, with its neighbours"),
      prompt_row(adakv(), 0, 32, "snapkv; the heads of a layer share their budgets"),
      prompt_row(pyramidkv(), 0, 32, "snapkv; the first layers have larger budgets than the last"),
      prompt_row(keydiff(), 0, 0, "KeyDiff: the key that is most like the others goes"),
      prompt_row(expected(), 4, 0, "expected attention: queries to come are taken for a Gaussian like the last ones"),
      prompt_row(tova_mean(), 0, 0, "TOVA as published: one token leaves all heads of a layer"),
      hook_row(vatp(), "VATP: accumulated attention times the norm of the value", kReadingBlock),
      hook_row(redundancy(), "R-KV: accumulated attention less the similarity of the key to others", kReadingBlock),
      hook_row(merge(), "after D2O: the value of what goes is merged into the most similar key; not recommended",
               kReadingBlock),
      hook_row(lazy(), "LazyEviction: tokens that are attended to at intervals", kReadingBlock),
      hook_row(multi(), "a weighted sum of attention, frequency, TextRank, value and age", kReadingBlock),
      hook_row(learned(), "the least attention to come goes, as a model of a2sf tune --learn predicts it",
               kReadingBlock),
  };
}

struct Registry {
  std::mutex mutex;
  std::vector<PolicyRow> rows = built_in_rows();
};

Registry& registry() {
  static Registry registry;
  return registry;
}

}  // namespace

std::vector<PolicyRow> policies() {
  const std::scoped_lock lock(registry().mutex);
  return registry().rows;
}

Status add_policy(PolicyRow row) {
  const std::string& name = row.spec.name;
  if (name.empty() || name.find_first_of(":,=") != std::string::npos)
    return fail(ErrorKind::bad_input, fmt::format("'{}' cannot name a policy: a name has no ':', ',' or '='", name));
  const std::scoped_lock lock(registry().mutex);
  auto& rows = registry().rows;
  const auto is_same = [&](const PolicyRow& other) { return other.spec.name == name; };
  if (std::any_of(rows.begin(), rows.end(), is_same))
    return fail(ErrorKind::bad_input, fmt::format("there is a policy '{}' already", name));
  rows.push_back(std::move(row));
  return {};
}

const Accumulate* PolicySpec::accumulates() const {
  if (const auto* hooked = std::get_if<Hooked>(&score)) return &hooked->accumulate;
  return std::get_if<Accumulate>(&score);
}

const Profile* PolicySpec::profile() const {
  const auto* shares = std::get_if<BudgetShares>(&budget.budget);
  return shares == nullptr ? nullptr : shares->profile.get();
}

bool PolicySpec::has_ratio() const {
  if (const auto* shares = std::get_if<BudgetShares>(&budget.budget))
    return std::holds_alternative<BudgetRatio>(shares->mean);
  return std::holds_alternative<BudgetRatio>(budget.budget);
}

const BudgetTable* PolicySpec::budget_table() const { return std::get_if<BudgetTable>(&budget.budget); }

std::int64_t PolicySpec::block() const {
  const auto* every = std::get_if<EvictEvery>(&schedule);
  return every == nullptr ? 1 : every->block;
}

}  // namespace a2sf
