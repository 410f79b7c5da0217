#include "eval/bench.h"

#include "eval/bound.h"

#include "auto_profile.h"
#include "child.h"
#include "commands.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"
#include "tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

namespace a2sf::app {
namespace {

struct Flags {
  ModelFlags model;
  std::string shape;  // instead of a file
  CacheFlags cache;
  OutputFlags output;
  std::string prompts = "512", decodes = "128", depths = "0", sequences = "1";
  std::size_t repeats = 5;
  bool bound = false;
};

std::shared_ptr<const Model> make_model(const Flags& flags) {
  return flags.shape.empty() ? load_model(flags.model)
                             : need(Model::random(flags.shape, model_options(flags.model), kSpeedTestSeed));
}

ModelInfo info_of(const Flags& flags) {
  if (flags.shape.empty() == flags.model.model.empty())
    fail_with(kWrongUsage, "give either a model with -m FILE or a shape with --shape NAME:TYPE");
  return flags.shape.empty() ? need(need(inspect(flags.model.model)).model)
                             : need(inspect_shape(flags.shape), kWrongUsage);
}

// For each depth the prompt tests, then the decode tests; 0 tokens: no test.
std::vector<SpeedTest> read_tests(const Flags& flags) {
  const PolicySpec spec = spec_of(flags.cache);
  const auto prompts = read_numbers("-p", flags.prompts, 0), decodes = read_numbers("-n", flags.decodes, 0);
  std::vector<SpeedTest> tests;
  const auto add = [&](bool decode, std::size_t tokens, std::size_t depth, std::size_t sequences) {
    if (tokens > 0) tests.push_back({decode, tokens, depth, flags.repeats, spec, kv_type_of(flags.cache), sequences});
  };
  const auto sequences = read_numbers("--sequences", flags.sequences, 1);
  for (const std::size_t depth : read_numbers("-d", flags.depths, 0)) {
    for (const std::size_t tokens : prompts) add(false, tokens, depth, 1);
    for (const std::size_t tokens : decodes) {
      for (const std::size_t together : sequences) add(true, tokens, depth, together);
    }
  }
  if (tests.empty()) fail_with(kWrongUsage, "there is nothing to measure: -p and -n are both 0");
  return tests;
}

Json row_json(const SpeedTest& test, const SpeedResult& result) {
  Json row = {{"test", test.decode ? "decode" : "prompt"},
              {"n_tokens", test.tokens},
              {"depth", test.depth},
              {"sequences", test.sequences}};
  row.update(policy_json(test.policy));
  row.update(Json{{"tokens_per_s", median_of_sorted(result.tokens_per_s)},
                  {"tokens_per_s_min", result.tokens_per_s.front()},
                  {"tokens_per_s_max", result.tokens_per_s.back()},
                  {"repeats", test.repeats},
                  {"kv_bytes", result.kv_bytes},
                  {"cold_bytes", result.cold_bytes},
                  {"peak_rss_bytes", peak_rss_bytes()}});
  return row;
}

Json bound_json(const SpeedBound& bound, double tokens_per_s) {
  Json operations = Json::array();
  for (const OperationBound& operation : bound.operations) {
    operations.push_back({{"name", operation.name},
                          {"seconds_per_token", operation.seconds},
                          {"bound_seconds_per_token", operation.bound}});
  }
  return {{"read_bytes_per_s", bound.rates.read_bytes_per_s},
          {"byte_products_per_s", bound.rates.byte_products_per_s},
          {"float_products_per_s", bound.rates.float_products_per_s},
          {"bf16_products_per_s", bound.rates.bf16_products_per_s},
          {"tokens_per_s", bound.tokens_per_s},
          {"reached", tokens_per_s / bound.tokens_per_s},
          {"operations", operations}};
}

// Once for all tests, in a process that does nothing else, as each of them has.
std::optional<MachineRates> rates_of_machine(const Flags& flags) {
  if (!flags.bound) return std::nullopt;
  const std::string text = run_in_child([&] {
    const auto rates = need(measure_rates(*make_model(flags)));
    return dump(
        {rates.read_bytes_per_s, rates.byte_products_per_s, rates.float_products_per_s, rates.bf16_products_per_s}, -1);
  });
  const Json rates = Json::parse(text);
  return MachineRates{rates[0], rates[1], rates[2], rates[3]};
}

// The beginning of the document and the row, from a process that does nothing else.
Json measure(const Flags& flags, const SpeedTest& test, const std::optional<MachineRates>& rates) {
  const std::string text = run_in_child([&] {
    const auto model = make_model(flags);
    const SpeedResult result = need(measure_speed(model, test, [] { return !interrupted(); }));
    Json document = row_json(test, result);
    if (rates) {
      document["bound"] = bound_json(bound_of(*rates, *model, test, result), median_of_sorted(result.tokens_per_s));
    }
    document = {{"row", document}, {"beginning", new_document("bench", *model, flags.model)}};
    return dump(document, -1);
  });
  return Json::parse(text);
}

std::string table_of(const Json& rows) {
  std::vector<std::vector<std::string>> table = {
      {"test", "tokens", "depth", "sequences", "speed", "min", "max", "KV cache", "peak memory"}};
  for (const Json& row : rows) {
    table.push_back({row["test"], with_commas(row["n_tokens"]), with_commas(row["depth"]),
                     with_commas(row["sequences"]), rate_text(row["tokens_per_s"]),
                     fmt::format("{:.1f}", row["tokens_per_s_min"].get<double>()),
                     fmt::format("{:.1f}", row["tokens_per_s_max"].get<double>()), bytes_text(row["kv_bytes"]),
                     bytes_text(row["peak_rss_bytes"])});
  }
  return aligned_table(table);
}

// Per test and operation: the time a token takes, at best and really. What is not an operation is the rest.
std::string bound_table_of(const Json& rows) {
  std::vector<std::vector<std::string>> table = {
      {"test", "tokens", "depth", "part", "per token", "at best", "reached"}};
  for (const Json& row : rows) {
    const Json& bound = row["bound"];
    const double whole = 1 / row["tokens_per_s"].get<double>();
    double rest = whole;
    const auto add = [&](const std::string& part, double seconds, double best) {
      table.push_back({row["test"], with_commas(row["n_tokens"]), with_commas(row["depth"]), part,
                       fmt::format("{:.3f} ms", 1e3 * seconds), best > 0 ? fmt::format("{:.3f} ms", 1e3 * best) : "-",
                       best > 0 ? fmt::format("{:.0f} %", 100 * best / seconds) : "-"});
    };
    for (const Json& operation : bound["operations"]) {
      const double seconds = operation["seconds_per_token"];
      add(operation["name"], seconds, operation["bound_seconds_per_token"]);
      rest -= seconds;
    }
    add("rest", rest, 0);
    add("all", whole, 1 / bound["tokens_per_s"].get<double>());
  }
  const Json& rates = rows.front()["bound"];
  const auto billions = [&](const char* key) { return rates[key].get<double>() / 1e9; };
  return fmt::format("\nAt best these threads read {:.1f} GB/s and multiply {:.0f} G bytes/s or {:.0f} G floats/s:\n{}",
                     billions("read_bytes_per_s"), billions("byte_products_per_s"), billions("float_products_per_s"),
                     aligned_table(table));
}

void run(const Flags& flags) {
  auto tests = read_tests(flags);
  Delivery delivery(flags.output);
  const ModelInfo info = info_of(flags);
  std::size_t longest = 0;
  for (const SpeedTest& test : tests) longest = std::max(longest, test.depth + test.tokens);
  warn_past_context(info, longest);
  for (SpeedTest& test : tests)
    use_auto_profile(flags.cache, info, {}, {&test.policy, 1}, flags.output.json || &test != tests.data());
  Json document, rows = Json::array();
  {
    Progress progress("bench");
    const auto rates = rates_of_machine(flags);
    for (const SpeedTest& test : tests) {
      progress.update(rows.size(), tests.size());
      Json measured = measure(flags, test, rates);
      document = measured["beginning"];
      rows.push_back(measured["row"]);
    }
  }
  document["seed"] = kSpeedTestSeed;
  document["kv_type"] = flags.cache.kv_type;
  document["rows"] = rows;
  const std::string heading =
      fmt::format("{}, {}, {}, {}, median of {}\n", flags.shape.empty() ? model_title(info) : "random " + flags.shape,
                  harmless(to_string(tests.front().policy)), counted(document["threads"], "thread"),
                  document["isa"].get<std::string>(), flags.repeats);
  delivery.deliver(document, heading + table_of(rows) + (flags.bound ? bound_table_of(rows) : ""));
}

}  // namespace

void add_bench(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = add_command(app, "bench", "Tokens per second and memory, one process for each test",
                                  "a2sf bench -m model.gguf -p 512 -n 128 -d 0,4096 --policy a2sf --budget 256");
  add_model_flags(command, &flags->model)->required(false);
  command
      ->add_option(
          "--shape", flags->shape,
          "Instead of a file: random weights of a type, in the shape of a known model, as in --shape llama-3-8b:q4_0")
      ->type_name("NAME:TYPE");
  command->add_option("-p", flags->prompts, "Tokens of prompt tests, separated by commas; 0: none")
      ->type_name("N,...")
      ->capture_default_str();
  command->add_option("-n", flags->decodes, "Tokens of decode tests, separated by commas; 0: none")
      ->type_name("N,...")
      ->capture_default_str();
  command->add_option("-d", flags->depths, "Tokens read before the test, separated by commas")
      ->type_name("N,...")
      ->capture_default_str();
  command
      ->add_option("--sequences", flags->sequences,
                   "Sequences that decode together, separated by commas; the speed is that of all of them")
      ->type_name("N,...")
      ->capture_default_str();
  command->add_option("-r", flags->repeats, "Repeats of each test")->check(CLI::Range(1, 1000))->capture_default_str();
  command->add_flag("--bound", flags->bound,
                    "Also measure what the machine can do at best, and say how much of it each part reaches");
  add_cache_flags(command, &flags->cache);
  add_json_flag(command, &flags->output);
  add_output_file(command, &flags->output);
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
