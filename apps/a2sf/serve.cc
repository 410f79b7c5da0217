#include "auto_profile.h"
#include "commands.h"
#include "core/available_memory.h"
#include "http_server.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"
#include "serve/service.h"
#include "tables.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <sstream>

namespace a2sf::app {
namespace {

struct Flags {
  ModelFlags model;
  CacheFlags cache;
  SamplingFlags sampling;
  HttpOptions http;
  std::string key_file;
  serve::SchedulerLimits limits;
  int drain_seconds = 30, ping_seconds = 15;
  std::string scheduling_policy = "fcfs", profiles;
  bool has_seed = false, has_prefix_memory = false;
};

std::vector<std::string> read_keys(const std::string& file) {
  std::vector<std::string> keys;
  std::istringstream lines(read_text(file));
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) keys.push_back(line);
  }
  if (keys.empty()) fail_with(kFailed, fmt::format("{} has no key: one a line is expected", file));
  return keys;
}

// As many as the system lets this process have.
void allow_many_connections() {
  rlimit files = {};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

// NAME.json of a folder as NAME.
void add_profiles(const std::string& folder, const ModelInfo& model, serve::CacheDefaults& cache) {
  std::error_code error;
  const std::filesystem::directory_iterator files(folder, error);
  if (error) fail_with(kFailed, fmt::format("--profiles {}: {}", folder, error.message()));
  for (const auto& file : files) {
    if (file.path().extension() != ".json") continue;
    const std::string name = file.path().stem().string();
    auto profile = std::make_shared<const Profile>(need(read_profile(file.path().string())));
    const auto refuse = [&](const std::string& why) {
      fail_with(kFailed, fmt::format("--profiles {}: {} {}", folder, file.path().filename().string(), why));
    };
    if (name == "none" || name == "auto") refuse("has a name that means something else: give it another");
    const auto& shares = profile->tables.front().shares;
    if (std::cmp_not_equal(shares.size(), model.layers) || std::cmp_not_equal(shares.front().size(), model.kv_heads) ||
        (!profile->model_hash.empty() && profile->model_hash != model.hash))
      refuse(fmt::format("is of another model than {}", harmless(model.path)));
    cache.profiles[name] = std::move(profile);
  }
}

serve::CacheDefaults cache_defaults(const Flags& flags, const ModelInfo& model) {
  serve::CacheDefaults cache{flags.cache.policy, given_options(flags.cache)};
  std::erase_if(cache.options,
                [](const PolicyOption& option) { return option.name == "pin" && option.value == "system"; });
  cache.profiles["auto"] = auto_profile(model);
  for (const std::string& domain : shipped_domains()) {
    if (auto profile = shipped_profile(model.hash, domain)) cache.profiles[domain] = std::move(profile);
  }
  if (!flags.profiles.empty()) add_profiles(flags.profiles, model, cache);
  const std::string wanted = flags.cache.profile.empty() ? flags.cache.standard_profile : flags.cache.profile;
  if (wanted == "auto" || cache.profiles.contains(wanted)) {
    cache.profile = wanted;
  } else if (names_domain(wanted)) {
    fail_with(kFailed, fmt::format("--profile {}: no such profile comes with {}", wanted, harmless(model.path)));
  }
  return cache;
}

// Refuses what no request could use.
PolicySpec check_policy(const Flags& flags) {
  CacheFlags cache = flags.cache;
  if (cache.pin == "system") cache.pin.clear();
  PolicySpec spec = spec_of(cache);
  if (spec.has_ratio())
    fail_with(kWrongUsage, "--budget: requests have no common length to take a ratio of; give a count");
  return spec;
}

serve::ServiceOptions service_options(const Flags& flags, const ModelInfo& model) {
  serve::ServiceOptions options;
  options.limits = flags.limits;
  if (options.limits.memory == 0) options.limits.memory = available_memory() / 2;
  if (!flags.has_prefix_memory) options.limits.prefix_memory = options.limits.memory / 4;
  serve::ReaderOptions& reader = options.reader;
  reader.model_name = std::filesystem::path(model.path).stem().string();
  reader.cache = cache_defaults(flags, model);
  reader.pin_system = flags.cache.pin == "system";
  reader.kv_type = kv_type_of(flags.cache);
  reader.sampler = flags.sampling.options;
  if (flags.has_seed) reader.seed = flags.sampling.options.seed;
  reader.stop = flags.sampling.stop;
  reader.memory = options.limits.memory;
  reader.keeps_prefixes = options.limits.prefix_memory > 0;
  reader.has_priorities = flags.scheduling_policy == "priority";
  return options;
}

std::string ready_line(const Flags& flags, const HttpServer& server, const serve::ServiceOptions& options,
                       const PolicySpec& spec) {
  const bool is_v6 = flags.http.host.find(':') != std::string::npos;
  return fmt::format("{} on http://{}:{}, {}, at most {} for caches, {}\n", harmless(options.reader.model_name),
                     is_v6 ? "[" + flags.http.host + "]" : flags.http.host, server.port(), to_string(spec),
                     bytes_text(static_cast<double>(options.limits.memory)),
                     counted(options.limits.max_sequences, "sequence") + " at once");
}

void run(const Flags& flags) {
  const PolicySpec spec = check_policy(flags);
  HttpOptions http = flags.http;
  http.ping = std::chrono::seconds(flags.ping_seconds);
  if (!flags.key_file.empty()) http.keys = read_keys(flags.key_file);
  const bool is_guarded = !http.keys.empty();
  allow_many_connections();
  const auto server = need(HttpServer::create(std::move(http)));
  if (!is_guarded && !server->is_loopback())
    warn(
        fmt::format("--host {}: whoever reaches this address may use the server; give --api-key-file, or listen on "
                    "127.0.0.1",
                    flags.http.host));
  Tokenizer tokenizer = need(Tokenizer::load(flags.model.model));
  const auto model = load_model(flags.model);
  const serve::ServiceOptions options = service_options(flags, model->info());
  need(cache_cost(model->info(), {.policy = spec, .kv_type = options.reader.kv_type}, 1));
  serve::Service service(options, model, std::move(tokenizer), server->notify());
  server->serve(service);
  try {
    print(ready_line(flags, *server, options, spec));
    flush_output();
  } catch (...) {  // the service goes before the server does: nobody may use it any more
    server->drain(std::chrono::seconds(0));
    throw;
  }
  while (wait_for_input(-1)) {
  }
  server->drain(std::chrono::seconds(flags.drain_seconds));
}

void add_network_flags(CLI::App* command, Flags* flags) {
  const Heading heading(command, "Network");
  command->add_option("--host", flags->http.host, "Address to listen on; 0.0.0.0: every one this machine has")
      ->type_name("ADDRESS")
      ->capture_default_str();
  command->add_option("--port", flags->http.port, "Port to listen on; 0: a free one, which the first line says")
      ->capture_default_str();
  command->add_option("--api-key-file", flags->key_file, "A file of keys, one a line: a request must present one")
      ->type_name("F");
  command->add_option("--cors", flags->http.cors, "Let pages of this origin read answers; *: any page")
      ->type_name("ORIGIN");
  command
      ->add_option("--ping-seconds", flags->ping_seconds,
                   "A stream on which nothing came for so long gets a comment, so that no proxy closes it; 0: none")
      ->capture_default_str()
      ->check(CLI::Range(0, 86400));
  command
      ->add_option("--drain-seconds", flags->drain_seconds,
                   "After Ctrl-C or SIGTERM, requests that run have so long to end")
      ->capture_default_str()
      ->check(CLI::Range(0, 86400));
}

void add_limit_flags(CLI::App* command, Flags* flags) {
  const Heading heading(command, "Requests");
  serve::SchedulerLimits* const limits = &flags->limits;
  command
      ->add_option("--memory", limits->memory,
                   "Memory for all caches together (8GiB): a request waits until its cache fits")
      ->type_name("BYTES")
      ->default_str("half of what is free")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--prefix-memory", limits->prefix_memory,
                   "Bytes of it for caches that are kept for the next turns of conversations; 0: none are kept")
      ->type_name("B")
      ->default_str("a quarter of --memory")
      ->transform(CLI::AsSizeValue(false));
  command->add_option("--max-sequences", limits->max_sequences, "Sequences that run at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  command->add_option("--queue", limits->queue, "Requests that may wait; the next ones are refused")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 20));
  command
      ->add_option("--scheduling", flags->scheduling_policy,
                   "Who starts first: fcfs, who came first; priority, whose `priority` is the lowest")
      ->type_name("P")
      ->capture_default_str()
      ->check(CLI::IsMember({"fcfs", "priority"}));
  command
      ->add_option("--step-tokens", limits->step_tokens,
                   "Tokens of a step: more reads prompts faster, fewer keeps answers fluent beside them")
      ->capture_default_str()
      ->check(CLI::Range(1, 2048));
  command
      ->add_option("--profiles", flags->profiles,
                   "A folder of profiles of this model: requests may ask for NAME, which is DIR/NAME.json")
      ->type_name("DIR");
}

}  // namespace

void add_serve(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  flags->sampling.options.temperature = 0.7F;
  CLI::App* command = add_command(
      app, "serve", "Answer OpenAI's API over HTTP, many requests at once, each with a bounded cache of its own",
      "a2sf serve -m model.gguf --port 8080 --memory 4GiB --policy a2sf --budget 512");
  add_model_flags(command, &flags->model);
  add_network_flags(command, flags.get());
  add_limit_flags(command, flags.get());
  flags->cache.standard_profile = "auto";
  add_cache_flags(command, &flags->cache);
  command->get_option("--pin")->description("First tokens that are never evicted, part of the budget; or system");
  add_sampling_flags(command, &flags->sampling);
  command->get_option("--seed")->description("Seed of sampling")->default_str("another one every time");
  command->callback([flags, command] {
    flags->has_seed = command->get_option("--seed")->count() > 0;
    flags->has_prefix_memory = command->get_option("--prefix-memory")->count() > 0;
    run(*flags);
  });
}

}  // namespace a2sf::app
