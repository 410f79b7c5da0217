// Numbers and tables as people read them.
#pragma once

#include <a2sf/model.h>

#include <cstdint>
#include <string>
#include <vector>

namespace a2sf::app {

// The first column is aligned left, the others right. Control characters in cells are written out.
std::string aligned_table(const std::vector<std::vector<std::string>>& cells);

std::string with_commas(std::uint64_t number);
// "1 thread", "2 threads".
std::string counted(std::size_t count, const char* noun);
std::string bytes_text(double bytes);
std::string rate_text(double tokens_per_s);
// "SmolLM2-135M-Instruct Q4_1" of ".../SmolLM2-135M-Instruct.Q4_1.gguf", control characters written out.
std::string model_title(const ModelInfo& info);

}  // namespace a2sf::app
