#include "core/libllama.h"

#include <llama.h>

#include <string_view>

namespace a2sf {
namespace {

thread_local std::string* capture = nullptr;

void keep_first_error(ggml_log_level level, const char* message, void*) {
  if (level == GGML_LOG_LEVEL_ERROR && capture != nullptr && capture->empty()) *capture = message;
}

// "llama_model_load: error loading model: unknown ..." and "gguf_init_from_reader: failed ..." name functions of
// libllama.
std::string_view without_function_name(std::string_view message) {
  const std::size_t colon = message.find(": ");
  const bool is_function =
      colon != std::string_view::npos && message.substr(0, colon).find(' ') == std::string_view::npos;
  return is_function ? message.substr(colon + 2) : message;
}

}  // namespace

void initialise_libllama() {
  [[maybe_unused]] static const bool once = [] {
    llama_log_set(keep_first_error, nullptr);
    llama_backend_init();
    return true;
  }();
}

ErrorCapture::ErrorCapture() { capture = &first_error_; }

ErrorCapture::~ErrorCapture() { capture = nullptr; }

std::string ErrorCapture::reason(const std::string& otherwise) const {
  std::string_view message = without_function_name(first_error_);
  while (!message.empty() && (message.back() == '\n' || message.back() == ' ')) message.remove_suffix(1);
  if (message.empty()) return otherwise;
  std::string line(message);
  for (char& c : line) {
    if (c == '\n') c = ' ';
  }
  return line;
}

}  // namespace a2sf
