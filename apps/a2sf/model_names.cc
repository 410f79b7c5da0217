#include "model_names.h"

#include "outcome.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace a2sf::app {
namespace {

namespace fs = std::filesystem;

struct KnownModel {
  const char *name, *file;
};
constexpr KnownModel kKnownModels[] = {{"smollm2-135m", "SmolLM2-135M-Instruct.Q4_1.gguf"},
                                       {"gemma3-270m", "gemma-3-270m-q4_k_m.gguf"}};

std::string environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets it
  return value == nullptr ? "" : value;
}

// As tools/fetch finds it.
fs::path cache_folder() {
  const std::string folder = environment("XDG_CACHE_HOME");
  return (folder.empty() ? fs::path(environment("HOME")) / ".cache" : fs::path(folder)) / "a2sf";
}

}  // namespace

std::string model_file(const std::string& text) {
  std::error_code ignored;
  for (const auto& [name, file] : kKnownModels) {
    if (text != name || fs::exists(text, ignored)) continue;
    const fs::path kept = cache_folder() / file;
    if (fs::exists(kept, ignored)) return kept.string();
    fail_with(kFailed, fmt::format("there is no file {0}, and no model {1} yet: tools/fetch {0} fetches it", name,
                                   kept.string()));
  }
  const bool is_word = text.find_first_of("/.") == std::string::npos;
  if (!text.empty() && is_word && !fs::exists(text, ignored)) {
    fail_with(kFailed, fmt::format("there is no file {}, and tools/fetch has no model of this name; it has {} and {}",
                                   text, kKnownModels[0].name, kKnownModels[1].name));
  }
  return text;
}

}  // namespace a2sf::app
