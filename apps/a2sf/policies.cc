#include "commands.h"
#include "options.h"
#include "tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

namespace a2sf::app {
namespace {

constexpr const char* kOptions =
    "\nOptions are joined with ':' (a2sf:alpha=0.9:sink=4:recent=0.5):\n"
    "  alpha         forgetting factor, 0 to 1; auto: by memory\n"
    "  memory        instead of alpha, which is 1 - 1/(memory * budget) then: 1.5, or with power 1.5: 2\n"
    "  power         what a row adds to a score: p to this power, 1 (default) or 1.5\n"
    "  value-weight  on: scores are weighed by how far a token's value lies from the mean of all; needs a sink\n"
    "  threshold     probabilities below it are not added, 0 (default) to below 1\n"
    "  classes       a JSON file of token classes, each with a memory and a weight of its own (a2sf tune --classes)\n"
    "  budget        tokens kept per layer and KV head: a count (default 1024), a ratio of the sequence (0.2 or 20%),\n"
    "                all, or @FILE, a JSON table by layer and KV head: {\"budgets\": [[64, 32], [16, \"all\"]]}\n"
    "  layers        layers that are bounded, counted from 0, the others keep everything: a2sf:layers=2-29+31\n"
    "  profile       a JSON file that shares the budget out over layers and KV heads, with an alpha each if it has\n"
    "                them; the budget is then the mean per bounded head: a2sf:budget=256:profile=model.profile.json\n"
    "  sink          the first positions, never evicted\n"
    "  recent        the newest positions, never evicted: a count, or a ratio of the budget\n"
    "  block         evict every N tokens, or `prompt`: once, at the end of the prompt\n"
    "  pin           the first tokens, never evicted (default 0); part of the budget, like sink and recent\n"
    "  cold          tokens per KV head that are kept when they are evicted, a count (default 0) or all; what the "
    "last\n"
    "                tokens ask for comes back when tokens are evicted and at the end of a prompt; sets block to 16\n"
    "  recall        with cold: at most so many come back at once (default 32)\n"
    "docs/policies.md says more of each policy, and which options hooks have of their own.\n";

std::string block_text(const PolicySpec& spec) {
  if (spec.keeps_all() || spec.is_oracle()) return "-";
  return spec.evicts_at_prompt_end() ? "prompt" : fmt::format("{}", spec.block());
}

void run(const OutputFlags& flags) {
  const std::vector<PolicyRow> known = policies();
  std::vector<std::vector<std::string>> rows = {{"policy", "alpha", "sink", "recent", "block"}};
  Json document = {{"command", "policies"}, {"version", version()}, {"rows", Json::array()}};
  for (const PolicyRow& row : known) {
    rows.push_back({row.spec.name, row.alpha, row.sink, row.recent, block_text(row.spec)});
    document["rows"].push_back({{"policy", row.spec.name},
                                {"alpha", row.alpha},
                                {"sink", row.sink},
                                {"recent", row.recent},
                                {"block", block_text(row.spec)},
                                {"summary", row.summary}});
  }
  std::string text = aligned_table(rows) + "\n";
  std::size_t width = 0;
  for (const PolicyRow& row : known) width = std::max(width, row.spec.name.size());
  for (const PolicyRow& row : known) text += fmt::format("{:<{}}   {}\n", row.spec.name, width, row.summary);
  Delivery(flags).deliver(document, text + kOptions);
}

}  // namespace

void add_policies(CLI::App& app) {
  auto flags = std::make_shared<OutputFlags>();
  CLI::App* command = add_command(app, "policies", "Every policy, its options and defaults", "a2sf policies");
  add_json_flag(command, flags.get());
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
