// Retention policies: what stays in a bounded KV cache. One recurrence holds the whole family (arXiv 2407.20485):
//   A <- alpha * A + sum over the group's query heads of the attention probability
// and when the cache is over its budget, the token with the lowest A that is neither a sink, nor recent, nor pinned
// goes.
#pragma once

#include <a2sf/result.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace a2sf {

class LayerHook;
struct Profile;

enum class Policy { full, local, streaming, h2o, tova, a2sf, ideal, hook };

// Tokens to keep per layer and KV head: a count, a ratio of the sequence's length, or a table [layer][kv head] of
// counts.
struct Budget {
  std::int64_t count = 1024;                     // used if ratio is 0 and the table is empty; at least 1
  double ratio = 0;                              // (0, 1]: rounded up to whole tokens; 0: none
  std::vector<std::vector<std::int64_t>> table;  // every entry at least 1
  std::string file = {};                         // where the table was read from, as given; empty: from elsewhere
};

// A count of tokens, or a ratio of the head's budget (rounded down).
struct RecentWindow {
  std::int64_t count = 0;
  double ratio = 0;
};

struct PolicySpec {
  Policy policy = Policy::a2sf;
  Budget budget;
  std::optional<double> alpha;         // forgetting factor in [0, 1]; none: the policy's own (a2sf: 1 - 1/(1.5 budget))
  bool auto_alpha = false;             // the policy's own alpha even if a profile has others
  std::optional<std::int64_t> sink;    // first positions never evicted; none: the policy's own
  std::optional<RecentWindow> recent;  // newest positions never evicted; none: the policy's own
  std::int64_t block = 1;              // evict when budget + block slots are occupied; at least 1
  bool whole_prompt = false;           // block = prompt: full attention in the prompt, one eviction at its end
  std::int64_t pin = 0;                // the first `pin` tokens are never evicted; they count in the budget
  std::shared_ptr<LayerHook> hook;     // Policy::hook only
  // Shares the budget, a count or a ratio, out over the heads: it is then the mean per KV head. Where the policy's own
  // alpha depends on the budget (a2sf, hooks), the profile's alphas take its place.
  std::shared_ptr<const Profile> profile;
};

// What `a2sf policies` prints of each policy.
struct PolicyInfo {
  Policy policy;
  std::string_view name, alpha, sink, recent, summary;
};
std::span<const PolicyInfo> policies();
std::string_view name_of(Policy policy);

// Reads "a2sf:alpha=0.9:sink=4": a policy's name, then options alpha, budget, profile, sink, recent, block, pin. What
// the text does not say is taken from `defaults`. `budget=@FILE` and `profile=FILE` read that file. Errors name the
// option, its value and what is allowed.
Result<PolicySpec> parse_policy(std::string_view text, const PolicySpec& defaults = {});
// Sets one option of a spec ("alpha", "0.9").
Status set_option(PolicySpec& spec, std::string_view option, std::string_view value);
Result<Budget> parse_budget(std::string_view text);
// The shortest spec that parse_policy reads as the same policy and options, as long as the files that it names are the
// same. A hook prints its own name, a table or a profile that was read from no file as "unnamed".
std::string to_string(const PolicySpec& spec);

// What one KV head does: the spec with ratios, profile, `auto` and defaults resolved against its budget.
struct HeadRule {
  std::int64_t budget;  // tokens retained
  double alpha;
  std::int64_t sink, recent;
};

// Resolves a spec for one KV head. Every number of the spec that is out of its range is an error that names it.
// `sequence_tokens` is what a ratio is a ratio of (0: ratios are an error);
// `window` is the layer's sliding window (0: none), which bounds the budget.
Result<HeadRule> resolve(const PolicySpec& spec, int layer, int kv_head, std::int64_t sequence_tokens,
                         std::int64_t window);

}  // namespace a2sf
