// Retention policies: what stays in a bounded KV cache. A policy is four values: how many tokens each KV head keeps
// (budget plan), what is known of each (score rule), which of them never go (keep rule), and when the others do
// (eviction schedule). A name such as "h2o" is a row of one table that says what the four are where nothing else is.
//
// One recurrence holds the whole family (arXiv 2407.20485):
//   A <- alpha * A + sum over the group's query heads of the attention probability
// and when the cache is over its budget, the token with the lowest A that is neither a sink, nor recent, nor pinned
// goes.
#pragma once

#include <a2sf/result.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace a2sf {

class HookFactory;
struct Profile;
struct TokenClasses;

// ---- how many tokens each KV head of each layer keeps

// A budget is at least 1 token. No sequence is longer than this one: such a head keeps everything, has no scores, and
// its memory grows.
inline constexpr std::int64_t kKeepAll = std::numeric_limits<std::int32_t>::max();

struct BudgetCount {
  std::int64_t tokens = 1024;
  bool operator==(const BudgetCount&) const = default;
};
struct BudgetRatio {
  double ratio = 1;  // (0, 1] of the sequence's length, rounded up to whole tokens
  bool operator==(const BudgetRatio&) const = default;
};
struct BudgetTable {
  std::vector<std::vector<std::int64_t>> tokens;  // [layer][kv head]
  std::string file = {};                          // where it was read from, as given; empty: from elsewhere
  bool operator==(const BudgetTable&) const = default;
};
// The mean of all bounded heads, shared out by a profile.
struct BudgetShares {
  std::variant<BudgetCount, BudgetRatio> mean;
  std::shared_ptr<const Profile> profile;
  bool operator==(const BudgetShares&) const = default;
};

struct LayerRange {
  int first = 0, last = 0;  // inclusive
  bool operator==(const LayerRange&) const = default;
};

struct BudgetPlan {
  std::variant<BudgetCount, BudgetRatio, BudgetTable, BudgetShares> budget;
  std::vector<LayerRange> layers = {};  // that are bounded, the others keep everything; empty: all are
  bool operator==(const BudgetPlan&) const = default;
};

// ---- what is known of each token

// 1 - 1/(memory * budget), of each head's own budget: a token's part of a score lasts about memory * budget rows.
struct AutoAlpha {
  double memory = 0;  // in budgets, above 0; 0: what is best as a rule, 1.5, with power 1.5: 2
  bool operator==(const AutoAlpha&) const = default;
};
// What the profile of the budget plan says for the head; AutoAlpha where there is none.
struct ProfileAlpha {
  bool operator==(const ProfileAlpha&) const = default;
};
using Alpha = std::variant<double, AutoAlpha, ProfileAlpha>;  // the forgetting factor, 0 to 1

// Nothing, and nothing is evicted.
struct NoScore {
  bool operator==(const NoScore&) const = default;
};
// A <- alpha A + sum over the group of p^power, of those p that are at least `threshold`.
struct Accumulate {
  Alpha alpha = ProfileAlpha{};
  double power = 1;  // 1 (the paper) or 1.5
  // The lowest A w goes, where w = |v - m| is the distance of the token's value to the mean of all values that the KV
  // head has seen until then, its own included. The first token's w is 0, so there must be a sink.
  bool value_weight = false;
  // Each token's class changes its alpha and what a row adds to its score. nullptr: there are none.
  std::shared_ptr<const TokenClasses> classes = nullptr;
  double threshold = 0;  // from 0 to below 1
  bool operator==(const Accumulate&) const = default;
};
// Everything is held; a row sees itself and the `budget` earlier tokens of highest probability.
struct Oracle {
  bool operator==(const Oracle&) const = default;
};
// An object of each sequence names the victims (hook.h). It may look at A.
struct Hooked {
  std::shared_ptr<const HookFactory> factory;
  Accumulate accumulate;
  bool operator==(const Hooked&) const = default;
};
using ScoreRule = std::variant<NoScore, Accumulate, Oracle, Hooked>;

// ---- what never goes; all of it is part of the budget

struct SinkTokens {
  std::int64_t tokens = 0;  // the first positions
  bool yields = false;      // gives way where the budget is too small, instead of being an error
  bool operator==(const SinkTokens&) const = default;
};
struct RecentTokens {
  std::variant<std::int64_t, double> size = std::int64_t{0};  // newest positions: a count, or a ratio of the head's
                                                              // budget (rounded down)
  bool yields = false;                                        // gives way to sinks and pins, likewise
  bool operator==(const RecentTokens&) const = default;
};
struct KeepRule {
  SinkTokens sink;
  RecentTokens recent;
  std::int64_t pin = 0;  // the first tokens: as a sink, of a prompt that is known to matter
  bool operator==(const KeepRule&) const = default;
};

// ---- when the others go

// When budget + block slots are occupied, until `budget` are left. 1 is the paper.
struct EvictEvery {
  std::int64_t block = 1;
  bool operator==(const EvictEvery&) const = default;
};
// A prompt sees all of itself; at its end all heads are cut to their budgets at once. Then token by token.
struct EvictAtPromptEnd {
  bool operator==(const EvictAtPromptEnd&) const = default;
};
using EvictionSchedule = std::variant<EvictEvery, EvictAtPromptEnd>;

// ---- where they go

// What leaves a head by its score is kept in host memory, at most `tokens` of each KV head: then the one goes for
// good that was least often recalled, of equal ones the oldest. Before every fourth row attends (by position; with a
// block B below 16 every B / 4, at least each), and before a prompt's last, cold tokens change places with held
// ones that may go. A token is wanted as much as the row adds to its score, or would add beside what the head holds,
// or to one of the three tokens before it if that is more: text is read on from where it is looked up, and the next
// rows do not choose. The most wanted cold tokens come for the least wanted held ones, as long as they are wanted
// more, with the score that as much in every row since they were first there would have given: a (1 - alpha^n) / (1
// - alpha) after n rows. With value weights, all of it is times weight. (Ours; Quest, arXiv 2406.10774, reads the
// pages of keys that match each query best instead.) Attention costs the budget as before. Layers with a sliding
// window have no cold tier.
struct ColdTier {
  std::int64_t tokens = 0;   // 0: there is none; kKeepAll: any number
  std::int64_t recall = 32;  // at most so many change places at once
  bool operator==(const ColdTier&) const = default;
};

// The default is "a2sf".
struct PolicySpec {
  std::string name = "a2sf";  // what it is called: a row of policies(), or a hook's own name
  BudgetPlan budget;
  ScoreRule score = Accumulate{};
  KeepRule keep{.sink = {}, .recent = {.size = 0.5, .yields = true}};
  EvictionSchedule schedule;
  ColdTier cold = {};  // of a policy that evicts by score

  bool keeps_all() const { return std::holds_alternative<NoScore>(score); }
  bool is_oracle() const { return std::holds_alternative<Oracle>(score); }
  bool evicts_at_prompt_end() const { return std::holds_alternative<EvictAtPromptEnd>(schedule); }
  bool has_cold_tier() const { return cold.tokens > 0 && std::holds_alternative<Accumulate>(score); }
  // Whether it matters where a prompt ends (Feed::prompt).
  bool heeds_prompts() const { return evicts_at_prompt_end() || has_cold_tier(); }
  const Accumulate* accumulates() const;    // nullptr: it has no scores
  const Profile* profile() const;           // nullptr: there is none
  bool has_ratio() const;                   // the budget is one of the sequence's length
  const BudgetTable* budget_table() const;  // nullptr: the budget is none
  std::int64_t block() const;               // of the schedule
  bool operator==(const PolicySpec&) const = default;
};

// ---- policies by name

struct PolicyRow {
  PolicySpec spec;                           // its name and what holds where nothing else is said
  std::string alpha, sink, recent, summary;  // the same for people; "-": has none
};
// Thread safe.
std::vector<PolicyRow> policies();
// Adds a row, a hook of your own for instance: parse_policy knows its name from then on. Fails if the name is taken, is
// empty or has a ':', ',' or '='. Thread safe.
Status add_policy(PolicyRow row);

struct PolicyOption {
  std::string name, value;
};

// Reads "a2sf:alpha=0.9:sink=4": a policy's name, then options alpha or memory, power, value-weight, threshold,
// classes, budget, profile, layers, sink, recent, block, pin, cold, recall and those that a hook adds. `cold` sets
// block to 16 where it is 1. `common` are options that come before the text's own. `budget=@FILE`, `profile=FILE` and
// `classes=FILE` read that file. Errors name the option, its value and what is allowed.
Result<PolicySpec> parse_policy(std::string_view text, std::span<const PolicyOption> common = {});
// Sets one option ("alpha", "0.9"). One that is valid but says nothing of this policy changes nothing (alpha of
// "full").
Status set_option(PolicySpec& spec, std::string_view option, std::string_view value);
// A count, a ratio ("0.2", "20%"), "all" or "@FILE".
Result<BudgetPlan> parse_budget(std::string_view text);
// Has a profile share the budget out, which must be a count or a ratio. Where the profile was made for options of the
// score, sink, recent or layers (Profile::policy), a policy of that name takes over those that it has not set itself.
Status share_by(PolicySpec& spec, std::shared_ptr<const Profile> profile);
// The shortest spec that parse_policy reads as the same policy and options, as long as the files that it names are the
// same. A table or a profile that was read from no file prints as "unnamed".
std::string to_string(const PolicySpec& spec);

// ---- what one KV head does

enum class RetentionMode {
  all,     // nothing goes, there are no scores
  score,   // the lowest score goes
  oracle,  // nothing goes, a row sees a part
  hook     // a hook says what goes
};

// A policy with ratios, profile, `auto` and defaults resolved against the head's budget.
struct HeadRule {
  std::int64_t budget = kKeepAll;  // tokens retained
  double alpha = 0;
  std::int64_t sink = 0, recent = 0, pin = 0;
  RetentionMode mode = RetentionMode::all;
  double power = 1;
  bool value_weight = false;
  bool classes = false;  // its tokens have some
  double threshold = 0;
};

// Resolves a spec for one KV head. Every number of the spec that is out of its range is an error that names it.
// `sequence_tokens` is what a ratio is a ratio of (0: ratios are an error);
// `window` is the layer's sliding window (0: none), which bounds the budget; `layers` are those of the model (0: not
// known yet, and no hook shifts tokens between them).
Result<HeadRule> resolve(const PolicySpec& spec, int layer, int layers, int kv_head, std::int64_t sequence_tokens,
                         std::int64_t window);

}  // namespace a2sf
