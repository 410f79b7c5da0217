#include "answer.h"

#include "outcome.h"
#include "progress.h"
#include "tables.h"
#include "text/terminal.h"

#include <fmt/format.h>

#include <cmath>

namespace a2sf::app {
namespace {

// Tokens in the cache, the mean over all layers and KV heads.
double mean_kept(const ModelInfo& info, const Session& session) {
  std::size_t kept = 0;
  for (int layer = 0; layer < info.layers; ++layer) {
    for (int head = 0; head < info.kv_heads; ++head) kept += session.retained(layer, head).size();
  }
  return static_cast<double>(kept) / (info.layers * info.kv_heads);
}

}  // namespace

bool show(std::string_view text) {
  if (!text.empty()) {
    print(text::escape_controls(text, text::Layout::keep));
    flush_output();
  }
  return !interrupted();
}

std::string figures(const Model& model, const Session& session, const Generation& generation,
                    const SamplerOptions& options) {
  std::string line = counted(generation.tokens.size(), "token");
  if (generation.fed > 0) line += ", " + rate_text(static_cast<double>(generation.fed) / generation.seconds);
  const auto kept = static_cast<std::uint64_t>(std::llround(mean_kept(model.info(), session)));
  line += fmt::format("; {} of {} tokens kept per head; KV cache {}", with_commas(kept),
                      with_commas(static_cast<std::uint64_t>(session.position())),
                      bytes_text(static_cast<double>(session.kv_bytes())));
  if (session.cold_bytes() > 0)
    line += fmt::format(" ({} of it cold)", bytes_text(static_cast<double>(session.cold_bytes())));
  if (options.temperature > 0) line += fmt::format("; seed {}", options.seed);
  return line;
}

const char* name_of(StopReason reason) {
  switch (reason) {
    case StopReason::length:
      return "length";
    case StopReason::end_of_generation:
      return "end_of_generation";
    case StopReason::stop_string:
      return "stop_string";
    case StopReason::interrupted:
      return "interrupted";
  }
  return "";
}

void add_tokens_flag(CLI::App* command, std::int64_t* tokens, std::int64_t least, const char* help) {
  constexpr std::int64_t kMost = 1 << 30;
  const auto check = [=](const std::string& text) {
    std::int64_t number = 0;
    const bool valid =
        CLI::detail::lexical_cast(text, number) && (number == -1 || (number >= least && number <= kMost));
    return valid ? std::string() : fmt::format("{} is not allowed: a count from {} to {}, or -1", text, least, kMost);
  };
  command->add_option("-n,--tokens", *tokens, help)->type_name("N")->check(check)->capture_default_str();
}

std::size_t tokens_to_generate(std::int64_t wanted, const ModelInfo& info, std::size_t used) {
  if (wanted >= 0) return static_cast<std::size_t>(wanted);
  if (info.context <= 0) fail_with(kFailed, fmt::format("{} does not say how long its context is: give -n", info.path));
  const auto context = static_cast<std::size_t>(info.context);
  return used < context ? context - used : 0;
}

}  // namespace a2sf::app
