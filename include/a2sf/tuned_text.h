// The texts that something was tuned on: what it does there says nothing about other texts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace a2sf {

struct TunedText {
  std::string name, hash;
};

// FNV-1a, 64 bits, as 16 hex digits.
std::string text_hash(std::string_view text);

// Whether one of the texts has this hash.
bool has_text(const std::vector<TunedText>& texts, std::string_view text_hash);

}  // namespace a2sf
