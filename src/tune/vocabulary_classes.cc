#include "tune/vocabulary_classes.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace a2sf {
namespace {

constexpr std::size_t kFunctionWords = 60;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
// Of a word: an ASCII letter, or a byte of a character beyond ASCII.
bool is_of_word(char c) { return is_lower(c) || is_upper(c) || static_cast<unsigned char>(c) >= 0x80; }

std::string_view without_space(std::string_view piece) {
  piece.remove_prefix(std::min(piece.find_first_not_of(' '), piece.size()));
  return piece;
}

// The words of the text that are all lower case, the most frequent first; of equal ones the earlier in the alphabet.
std::set<std::string, std::less<>> frequent_words(std::string_view text) {
  std::map<std::string, std::size_t, std::less<>> counts;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto* const end = std::find_if_not(text.begin() + begin, text.end(), is_of_word);
    const std::string_view word = text.substr(begin, static_cast<std::size_t>(end - text.begin()) - begin);
    if (!word.empty() && std::all_of(word.begin(), word.end(), is_lower)) ++counts[std::string(word)];
    begin += word.size() + 1;
  }
  std::vector<std::pair<std::string, std::size_t>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  sorted.resize(std::min(sorted.size(), kFunctionWords));
  std::set<std::string, std::less<>> words;
  for (auto& [word, count] : sorted) words.insert(std::move(word));
  return words;
}

}  // namespace

PieceKind kind_of_piece(std::string_view piece) {
  const std::string_view word = without_space(piece);
  const auto all_are = [&](auto is) { return std::all_of(word.begin(), word.end(), is); };
  if (all_are([](char c) { return !is_of_word(c) && !is_digit(c); })) return PieceKind::punctuation;
  if (all_are(is_digit)) return PieceKind::digits;
  if (is_upper(word.front())) return PieceKind::capitalised;
  // Without a space before it, it is a part of a word as often as a word.
  return word.size() < piece.size() && all_are(is_lower) ? PieceKind::lower_word : PieceKind::rest;
}

TokenClasses classes_of_vocabulary(const Tokenizer& tokenizer, std::string_view text) {
  enum Class : std::uint8_t { kPunctuation, kDigits, kFunction, kCapitalised, kRest };
  TokenClasses classes{{{"punctuation"}, {"digits"}, {"function words"}, {"capitalised"}, {"rest"}}, {}};
  const auto frequent = frequent_words(text);
  const auto class_of = [&](std::string_view piece) {
    switch (kind_of_piece(piece)) {
      case PieceKind::punctuation:
        return kPunctuation;
      case PieceKind::digits:
        return kDigits;
      case PieceKind::lower_word:
        return frequent.count(without_space(piece)) > 0 ? kFunction : kRest;
      case PieceKind::capitalised:
        return kCapitalised;
      case PieceKind::rest:
        break;
    }
    return kRest;
  };
  for (int token = 0; token < tokenizer.vocabulary_size(); ++token) {
    const std::string piece = tokenizer.piece(token);
    classes.class_of.push_back(piece.empty() ? kRest : class_of(piece));
  }
  return classes;
}

}  // namespace a2sf
