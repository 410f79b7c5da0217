#include "tune/tune.h"

#include "auto_profile.h"
#include "commands.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"
#include "tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>

namespace a2sf::app {
namespace {

constexpr const char* kMeans = "8,16,32,64,128,256,512,1024";

struct Flags {
  ModelFlags model;
  TextFlags text;
  OutputFlags output;
  std::string policy = "a2sf", means = kMeans, file;
  std::size_t longest = 2048, windows = 2;
};

TuneOptions read_options(const Flags& flags) {
  TuneOptions options;
  options.policy = read_policy(flags.policy, {});
  if (!std::holds_alternative<Accumulate>(options.policy.score)) {
    fail_with(kWrongUsage,
              fmt::format("--policy {}: only policies that score tokens can be tuned (a2sf, h2o, tova, ...)",
                          harmless(flags.policy)));
  }
  options.means.clear();
  for (const std::string& item : split_list(flags.means)) {
    if (item.find_first_of(".%") != std::string::npos)
      fail_with(kWrongUsage, fmt::format("--budget: {} is a ratio; a text to tune on has no length of its own", item));
    options.means.push_back(static_cast<std::int64_t>(read_number("--budget", item, 1)));
  }
  std::sort(options.means.begin(), options.means.end());
  options.means.erase(std::unique(options.means.begin(), options.means.end()), options.means.end());
  options.longest_window = flags.longest;
  options.windows = flags.windows;
  return options;
}

Profile make_profile(const Flags& flags, const ModelInfo& model, std::vector<ShareTable> tables,
                     const std::string& text_hash) {
  const std::string name =
      flags.text.file == "-" ? "standard input" : std::filesystem::path(flags.text.file).filename().string();
  return {.tables = std::move(tables), .model = model.name, .model_hash = model.hash, .texts = {{name, text_hash}}};
}

// For people: the heads' least and largest budgets at each mean.
std::string table_of(const Profile& profile) {
  std::vector<std::vector<std::string>> rows = {{"mean budget", "least", "median", "largest"}};
  for (const ShareTable& table : profile.tables) {
    std::vector<double> shares;
    for (const auto& layer : table.shares) shares.insert(shares.end(), layer.begin(), layer.end());
    std::sort(shares.begin(), shares.end());
    const auto budget = [&](double share) {
      return with_commas(static_cast<std::uint64_t>(std::llround(share * static_cast<double>(table.mean))));
    };
    rows.push_back({with_commas(static_cast<std::uint64_t>(table.mean)), budget(shares.front()),
                    budget(shares[shares.size() / 2]), budget(shares.back())});
  }
  return aligned_table(rows);
}

void run(const Flags& flags) {
  const TuneOptions options = read_options(flags);
  const Tokenizer tokenizer = need(Tokenizer::load(flags.model.model));
  const auto [tokens, text_hash] = read_tokens(flags.text, tokenizer);
  const auto model = load_model(flags.model);
  warn_past_context(model->info(), flags.longest);
  const std::string target = flags.file.empty() ? profile_beside(flags.model.model) : flags.file;
  OutputFile file(target);
  const auto start = std::chrono::steady_clock::now();
  std::vector<ShareTable> tables;
  {
    Progress progress("tune");
    tables = need(tune_budgets(model, tokens, options,
                               [&](std::size_t done, std::size_t total) { return progress.update(done, total); }));
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const Profile profile = make_profile(flags, model->info(), std::move(tables), text_hash);
  file.write(to_json(profile));
  file.commit();
  if (target == "-") return;
  Json document = new_document("tune", *model, flags.model);
  document["text"] = flags.text.file;
  document["policy"] = to_string(options.policy);
  document["ctx"] = flags.longest;
  document["windows"] = flags.windows;
  document["seconds"] = seconds;
  document["file"] = target;
  document["profile"] = Json::parse(to_json(profile));
  Delivery({.json = flags.output.json, .file = ""})
      .deliver(document, table_of(profile) + fmt::format("{} written in {:.0f} s\n", harmless(target), seconds));
}

}  // namespace

void add_tune(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = add_command(
      app, "tune",
      "Measure on a text which layers and heads need how much of a budget, and write it as a profile of the model. "
      "Take a text like those that the model will read; what is measured on it must be scored on others",
      "a2sf tune -m model.gguf -f book.txt");
  add_model_flags(command, &flags->model);
  add_text_flags(command, &flags->text);
  command->add_option("-c,--ctx", flags->longest, "Tokens of the longest windows of the text")
      ->type_name("N")
      ->check(CLI::Range(64, 1 << 20))
      ->capture_default_str();
  command->add_option("--windows", flags->windows, "How many of them")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--budget", flags->means, "Mean budgets to make a table for each; others take the nearest")
      ->type_name("B,...")
      ->capture_default_str();
  command->add_option("--policy", flags->policy, "By which tokens go, with options if wanted")
      ->type_name("P")
      ->capture_default_str();
  command->add_option("-o,--output", flags->file, "The profile; -: standard output")
      ->type_name("FILE")
      ->default_str("MODEL.a2sf.json")
      ->group(kLastHeading);
  add_json_flag(command, &flags->output);
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
