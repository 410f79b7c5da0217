#include "text/vocabulary_file.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "core/libllama.h"

namespace a2sf::text {
namespace {

constexpr const char* kArchitecture = "general.architecture";
constexpr const char* kTokenizerModel = "tokenizer.ggml.model";
constexpr const char* kTokens = "tokenizer.ggml.tokens";

// libgguf would wait for ever on a pipe and call a directory a broken file.
Status check_is_readable_file(const std::string& path) {
  if (path.find('\0') != std::string::npos)
    return fail(ErrorKind::bad_input, "a file name must not contain a NUL byte");
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    const std::string why = error ? error.message() : std::generic_category().message(ENOENT);
    return fail(ErrorKind::io, fmt::format("{}: cannot open: {}", path, why));
  }
  if (std::filesystem::is_directory(status)) {
    return fail(ErrorKind::bad_input, fmt::format("{}: is a directory, not a GGUF file", path));
  }
  if (!std::filesystem::is_regular_file(status)) {
    return fail(ErrorKind::bad_input, fmt::format("{}: is no regular file", path));
  }
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) {
    return fail(ErrorKind::io, fmt::format("{}: cannot open: {}", path, std::generic_category().message(errno)));
  }
  std::fclose(file);
  return {};
}

// The getters of libgguf abort on a missing key or another type.
std::optional<std::string> find_string(const gguf_context* gguf, const char* key) {
  const std::int64_t id = gguf_find_key(gguf, key);
  if (id < 0 || gguf_get_kv_type(gguf, id) != GGUF_TYPE_STRING) return std::nullopt;
  return gguf_get_val_str(gguf, id);
}

Status check_tokenizer_model(const std::string& path, const gguf_context* gguf) {
  if (!find_string(gguf, kArchitecture)) {
    return fail(ErrorKind::bad_input, fmt::format("{}: no string '{}': not a language model", path, kArchitecture));
  }
  const std::optional<std::string> model = find_string(gguf, kTokenizerModel);
  if (!model) {
    return fail(ErrorKind::bad_input,
                fmt::format("{}: no string '{}': the file has no vocabulary", path, kTokenizerModel));
  }
  if (*model == "none" || *model == "no_vocab") {
    return fail(ErrorKind::bad_input,
                fmt::format("{}: the file has no vocabulary ({} is '{}'); it takes and gives token ids only", path,
                            kTokenizerModel, *model));
  }
  // The other tokenizers of libllama serve architectures that are not supported, and abort on some broken files.
  if (*model != "gpt2" && *model != "llama") {
    return fail(ErrorKind::unsupported,
                fmt::format("{}: tokenizer '{}' is not supported; supported are 'gpt2' and 'llama'", path, *model));
  }
  return {};
}

// libllama aborts if two tokens have the same text.
Status check_tokens(const std::string& path, const gguf_context* gguf) {
  const std::int64_t id = gguf_find_key(gguf, kTokens);
  if (id < 0 || gguf_get_kv_type(gguf, id) != GGUF_TYPE_ARRAY || gguf_get_arr_type(gguf, id) != GGUF_TYPE_STRING ||
      gguf_get_arr_n(gguf, id) == 0) {
    return fail(ErrorKind::bad_input, fmt::format("{}: '{}' must be a list of strings, not empty", path, kTokens));
  }
  const std::size_t count = gguf_get_arr_n(gguf, id);
  std::unordered_set<std::string> seen;
  seen.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    std::string token = gguf_get_arr_str(gguf, id, i);
    if (token.empty()) token = fmt::format("[EMPTY_{}]", i);  // the name that libllama gives it
    if (!seen.insert(std::move(token)).second) {
      return fail(ErrorKind::bad_input, fmt::format("{}: token {} is there twice in '{}'", path, i, kTokens));
    }
  }
  return {};
}

}  // namespace

Result<GgufMetadata> open_vocabulary_file(const std::string& path) {
  if (Status status = check_is_readable_file(path); !status) return tl::unexpected(status.error());
  const ErrorCapture capture;
  GgufMetadata gguf(gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = nullptr}));
  if (!gguf) {
    const std::string why = capture.reason("the header cannot be read");
    return fail(ErrorKind::bad_input, fmt::format("{}: not a GGUF file, or a damaged one: {}", path, why));
  }
  if (Status status = check_tokenizer_model(path, gguf.get()); !status) return tl::unexpected(status.error());
  if (Status status = check_tokens(path, gguf.get()); !status) return tl::unexpected(status.error());
  return gguf;
}

}  // namespace a2sf::text
