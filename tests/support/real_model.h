// Real models that tests may use: A2SF_MODEL, or the files that `tools/fetch` keeps.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

namespace a2sf::test {

inline std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Nothing where the file is absent or A2SF_TEST_TINY_ONLY asks for tiny models only; the test then skips.
inline std::optional<std::string> usable(const std::string& path) {
  std::error_code ignored;
  if (!environment("A2SF_TEST_TINY_ONLY").empty() || !std::filesystem::is_regular_file(path, ignored))
    return std::nullopt;
  return path;
}

// What `tools/fetch` keeps under this name.
inline std::optional<std::string> fetched_model_path(const std::string& file) {
  const std::string cache = environment("XDG_CACHE_HOME");
  return usable((cache.empty() ? environment("HOME") + "/.cache" : cache) + "/a2sf/" + file);
}

inline std::optional<std::string> real_model_path() {
  const std::string chosen = environment("A2SF_MODEL");
  return chosen.empty() ? fetched_model_path("SmolLM2-135M-Instruct.Q4_1.gguf") : usable(chosen);
}

}  // namespace a2sf::test
