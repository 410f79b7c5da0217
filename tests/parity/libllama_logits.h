// What libllama's own decoder predicts.
#pragma once

#include <llama.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace a2sf::test {

struct LibllamaOptions {
  int threads = 2;
  llama_flash_attn_type flash = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  ggml_type kv_type = GGML_TYPE_F16;
};

// Logits [tokens from `first` on][vocabulary]; everything of libllama's is gone on return. Empty on failure.
inline std::vector<float> libllama_logits(const std::string& path, std::span<const llama_token> tokens,
                                          std::size_t first, std::size_t vocabulary,
                                          const LibllamaOptions& options = {}) {
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_model_params of_model = llama_model_default_params();
  of_model.n_gpu_layers = 0;
  const std::unique_ptr<llama_model, decltype(&llama_model_free)> model(
      llama_model_load_from_file(path.c_str(), of_model), llama_model_free);
  if (!model) return {};
  llama_context_params of_context = llama_context_default_params();
  of_context.n_ctx = 1024;
  of_context.n_batch = static_cast<std::uint32_t>(tokens.size());
  of_context.n_threads = options.threads;
  of_context.n_threads_batch = options.threads;
  of_context.flash_attn_type = options.flash;
  of_context.type_k = options.kv_type;
  of_context.type_v = options.kv_type;
  const std::unique_ptr<llama_context, decltype(&llama_free)> context(llama_init_from_model(model.get(), of_context),
                                                                      llama_free);
  if (!context) return {};

  llama_batch batch = llama_batch_init(static_cast<int>(tokens.size()), 0, 1);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    batch.token[i] = tokens[i];
    batch.pos[i] = static_cast<llama_pos>(i);
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = static_cast<std::int8_t>(i >= first);
  }
  batch.n_tokens = static_cast<int>(tokens.size());
  const int failed = llama_decode(context.get(), batch);
  llama_batch_free(batch);
  if (failed != 0) return {};
  const float* logits = llama_get_logits(context.get());
  return {logits, logits + (tokens.size() - first) * vocabulary};
}

}  // namespace a2sf::test
