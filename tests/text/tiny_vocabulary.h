// GGUF files with a vocabulary of a few hundred tokens and no weights, for tests without the real model.
#pragma once

#include <gguf.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace a2sf::test {

// A file of its own in the temporary folder, removed at the end.
class TemporaryFile {
 public:
  TemporaryFile() {
    static int counter = 0;
    const std::string name = "a2sf_text_" + std::to_string(getpid()) + "_" + std::to_string(counter++) + ".gguf";
    path_ = (std::filesystem::temp_directory_path() / name).string();
  }
  explicit TemporaryFile(std::string_view content) : TemporaryFile() {
    std::ofstream(path_, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Ids: <unk> 0, <s> 1, </s> 2, the byte b is 3 + b, then "▁" 259, "▁hi" 260, "<|im_end|>" 261.
inline std::vector<std::string> tiny_tokens() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  const char* digits = "0123456789ABCDEF";
  for (int b = 0; b < 256; ++b) tokens.push_back(std::string("<0x") + digits[b / 16] + digits[b % 16] + ">");
  for (const char* token : {"▁", "▁hi", "<|im_end|>"}) tokens.emplace_back(token);
  return tokens;
}

inline void set_strings(gguf_context* gguf, const char* key, const std::vector<std::string>& strings) {
  std::vector<const char*> pointers;
  for (const std::string& string : strings) pointers.push_back(string.c_str());
  gguf_set_arr_str(gguf, key, pointers.data(), pointers.size());
}

// Writes a SentencePiece vocabulary of architecture "opt", which libllama does not know; `change` may break it.
inline void write_tiny_vocabulary(const std::string& path, const std::function<void(gguf_context*)>& change = {}) {
  const std::vector<std::string> tokens = tiny_tokens();
  const std::vector<float> scores(tokens.size(), 0.0F);
  std::vector<std::int32_t> types(tokens.size(), 1);
  types[0] = 2;                                    // unknown
  types[1] = types[2] = types[261] = 3;            // control
  for (int b = 0; b < 256; ++b) types[3 + b] = 6;  // byte
  const std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf(gguf_init_empty(), gguf_free);
  gguf_set_val_str(gguf.get(), "general.architecture", "opt");
  gguf_set_val_str(gguf.get(), "tokenizer.ggml.model", "llama");
  set_strings(gguf.get(), "tokenizer.ggml.tokens", tokens);
  gguf_set_arr_data(gguf.get(), "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores.data(), scores.size());
  gguf_set_arr_data(gguf.get(), "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types.data(), types.size());
  gguf_set_val_bool(gguf.get(), "tokenizer.ggml.add_eos_token", true);
  if (change) change(gguf.get());
  gguf_write_to_file(gguf.get(), path.c_str(), /*only_meta=*/false);
}

}  // namespace a2sf::test
