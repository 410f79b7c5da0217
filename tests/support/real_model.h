// The real model that tests may use: A2SF_MODEL, or the file that `tools/fetch smollm2-135m` keeps.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

namespace a2sf::test {

// Nothing where the file is absent or A2SF_TEST_TINY_ONLY asks for tiny models only; the test then skips.
inline std::optional<std::string> real_model_path() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  if (!variable("A2SF_TEST_TINY_ONLY").empty()) return std::nullopt;
  std::string path = variable("A2SF_MODEL");
  if (path.empty()) {
    const std::string cache = variable("XDG_CACHE_HOME");
    path = (cache.empty() ? variable("HOME") + "/.cache" : cache) + "/a2sf/SmolLM2-135M-Instruct.Q4_1.gguf";
  }
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return std::nullopt;
  return path;
}

}  // namespace a2sf::test
