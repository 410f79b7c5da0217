#include <a2sf/tuned_text.h>

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "core/fnv.h"

namespace a2sf {

std::string text_hash(std::string_view text) {
  return fmt::format("{:016x}", fnv1a(std::as_bytes(std::span(text.data(), text.size()))));
}

bool has_text(const std::vector<TunedText>& texts, std::string_view text_hash) {
  return std::any_of(texts.begin(), texts.end(), [&](const TunedText& text) { return text.hash == text_hash; });
}

}  // namespace a2sf
