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
    "  alpha    forgetting factor, 0 to 1; auto: 1 - 1/(1.5 budget)\n"
    "  budget   tokens kept per layer and KV head: a count (default 1024), a ratio of the sequence (0.2 or 20%), or\n"
    "           @FILE, a JSON table by layer and KV head: {\"budgets\": [[64, 32], [16, 16]]}\n"
    "  profile  a JSON file that shares the budget out over layers and KV heads, with an alpha each if it has them;\n"
    "           the budget is then the mean per head: a2sf:budget=256:profile=model.profile.json\n"
    "  sink     the first positions, never evicted\n"
    "  recent   the newest positions, never evicted: a count, or a ratio of the budget\n"
    "  block    evict every N tokens (default 1), or `prompt`: once, at the end of the prompt\n"
    "  pin      the first tokens, never evicted (default 0); part of the budget, like sink and recent\n";

void run(const OutputFlags& flags) {
  std::vector<std::vector<std::string>> rows = {{"policy", "alpha", "sink", "recent"}};
  Json document = {{"command", "policies"}, {"version", version()}, {"rows", Json::array()}};
  for (const PolicyInfo& info : policies()) {
    rows.push_back({std::string(info.name), std::string(info.alpha), std::string(info.sink), std::string(info.recent)});
    document["rows"].push_back({{"policy", info.name},
                                {"alpha", info.alpha},
                                {"sink", info.sink},
                                {"recent", info.recent},
                                {"summary", info.summary}});
  }
  std::string text = aligned_table(rows) + "\n";
  std::size_t width = 0;
  for (const PolicyInfo& info : policies()) width = std::max(width, info.name.size());
  for (const PolicyInfo& info : policies()) text += fmt::format("{:<{}}   {}\n", info.name, width, info.summary);
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
