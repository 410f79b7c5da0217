#include "eval/tasks/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <set>

#include "text/utf8.h"

namespace a2sf {
namespace {

using Words = std::vector<std::u32string_view>;

constexpr std::string_view kDigits = "0123456789";

// The scripts count characters, not bytes.
std::u32string characters(std::string_view text) {
  const std::string valid = text::replace_invalid(text);
  std::u32string decoded;
  for (std::string_view rest = valid; !rest.empty();) {
    const std::size_t length = text::character_length(rest);
    char32_t character = static_cast<unsigned char>(rest[0]);
    if (length > 1) character &= 0x7FU >> length;
    for (const char byte : rest.substr(1, length - 1))
      character = (character << 6) | (static_cast<unsigned char>(byte) & 0x3FU);
    decoded += character;
    rest.remove_prefix(length);
  }
  return decoded;
}

struct Range {
  char32_t first, last;
};

template <std::size_t N>
bool is_in(const Range (&ranges)[N], char32_t character) {
  return std::any_of(std::begin(ranges), std::end(ranges),
                     [&](const Range& range) { return character >= range.first && character <= range.last; });
}

// What Python's str.split() splits at.
bool is_blank(char32_t character) {
  static constexpr Range kBlanks[] = {{0x09, 0x0D},     {0x1C, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                                      {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                      {0x205F, 0x205F}, {0x3000, 0x3000}};
  return is_in(kBlanks, character);
}

// What Python's \w matches, but for symbols that are rare in English.
bool is_of_a_word(char32_t character) {
  static constexpr Range kOthers[] = {
      {0x00, 0x2F},     {0x3A, 0x40},     {0x5B, 0x5E},     {0x60, 0x60},      {0x7B, 0xA9},     {0xAB, 0xB1},
      {0xB4, 0xB4},     {0xB6, 0xB8},     {0xBB, 0xBB},     {0xBF, 0xBF},      {0xD7, 0xD7},     {0xF7, 0xF7},
      {0x2EF, 0x36F},   {0x589, 0x5CF},   {0x2000, 0x206F}, {0x20A0, 0x20FF},  {0x2190, 0x245F}, {0x2500, 0x2775},
      {0x2794, 0x2BFF}, {0x3000, 0x3004}, {0x3008, 0x3020}, {0xE000, 0xF8FF},  {0xFE00, 0xFE6F}, {0xFF00, 0xFF0F},
      {0xFF1A, 0xFF20}, {0xFF5B, 0xFF65}, {0xFFE0, 0xFFFF}, {0x1F000, 0x1FAFF}};
  return !is_in(kOthers, character);
}

// Of Latin and Cyrillic letters; others keep their case.
char32_t lowered(char32_t character) {
  static constexpr Range kBy32[] = {{'A', 'Z'}, {0xC0, 0xD6}, {0xD8, 0xDE}, {0x410, 0x42F}, {0xFF21, 0xFF3A}};
  static constexpr Range kEvenBy1[] = {{0x100, 0x12F}, {0x132, 0x137}, {0x14A, 0x177}};
  static constexpr Range kOddBy1[] = {{0x139, 0x148}, {0x179, 0x17E}};
  if (is_in(kBy32, character)) return character + 32;
  if (character >= 0x400 && character <= 0x40F) return character + 80;
  const bool by_1 = character % 2 == 0 ? is_in(kEvenBy1, character) : is_in(kOddBy1, character);
  return by_1 ? character + 1 : character;
}

Words words_of(std::u32string_view text) {
  Words words;
  for (auto at = text.begin(); at != text.end();) {
    const auto end = std::find_if(at, text.end(), is_blank);
    if (end != at) words.push_back(text.substr(at - text.begin(), end - at));
    at = std::find_if_not(end, text.end(), is_blank);
  }
  return words;
}

// In small letters, without ASCII punctuation, a blank in place of each article.
std::u32string normalized(std::string_view text) {
  constexpr std::u32string_view kPunctuation = U"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
  std::u32string plain, result;
  for (const char32_t character : characters(text)) {
    if (kPunctuation.find(character) == std::u32string::npos) plain += lowered(character);
  }
  for (auto at = plain.begin(); at != plain.end();) {
    const auto end = std::find_if_not(at, plain.end(), is_of_a_word);
    const std::u32string word(at, end);
    result += word == U"a" || word == U"an" || word == U"the" ? U" " : word;
    at = std::find_if(end, plain.end(), is_of_a_word);
    result.append(end, at);
  }
  return result;
}

// [x.size() + 1][y.size() + 1]: length of the longest common subsequence of each two beginnings.
template <class Sequence>
std::vector<std::uint32_t> common_lengths(const Sequence& x, const Sequence& y) {
  const std::size_t width = y.size() + 1;
  std::vector<std::uint32_t> lengths((x.size() + 1) * width);
  for (std::size_t i = 0; i < x.size(); ++i) {
    for (std::size_t j = 0; j < y.size(); ++j) {
      const std::uint32_t* above = &lengths[i * width + j];
      lengths[(i + 1) * width + j + 1] = x[i] == y[j] ? above[0] + 1 : std::max(above[1], above[width]);
    }
  }
  return lengths;
}

// Adds the words of one longest common subsequence: of several the one that the package finds.
void add_common_words(const Words& gold, const Words& answer, std::set<std::u32string_view>& common) {
  const auto lengths = common_lengths(gold, answer);
  const std::size_t width = answer.size() + 1;
  for (std::size_t i = gold.size(), j = answer.size(); i > 0 && j > 0;) {
    if (gold[i - 1] == answer[j - 1]) {
      common.insert(gold[i - 1]);
      --i, --j;
    } else if (lengths[(i - 1) * width + j] > lengths[i * width + j - 1]) {
      --i;
    } else {
      --j;
    }
  }
}

// Between full stops. One of blanks alone has the empty word.
std::vector<Words> sentences_of(std::u32string_view text) {
  std::vector<Words> sentences;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(U'.', at), text.size());
    if (end > at) sentences.push_back(words_of(text.substr(at, end - at)));
    if (end > at && sentences.back().empty()) sentences.back().emplace_back();
    at = end + 1;
  }
  return sentences;
}

std::size_t different_words(const std::vector<Words>& sentences) {
  std::set<std::u32string_view> words;
  for (const Words& sentence : sentences) words.insert(sentence.begin(), sentence.end());
  return words.size();
}

// The last match of (-?[$0-9.,]{2,})|(-?[0-9]+).
std::string_view last_number(std::string_view text) {
  constexpr std::string_view kParts = "$0123456789.,";
  for (std::size_t last = text.find_last_of(kParts); last != std::string::npos;) {
    const std::size_t first = text.find_last_not_of(kParts, last) + 1;
    const std::size_t sign = first > 0 && text[first - 1] == '-' ? 1 : 0;
    if (last > first || kDigits.find(text[first]) != std::string::npos)
      return text.substr(first - sign, last + 1 - first + sign);
    if (first == 0) break;
    last = text.find_last_of(kParts, first - 1);
  }
  return "[invalid]";
}

std::string plain_number(std::string_view number) {
  std::string plain;
  std::copy_if(number.begin(), number.end(), std::back_inserter(plain), [](char c) { return c != ',' && c != '$'; });
  if (!plain.empty() && plain.back() == '.') plain.pop_back();
  return plain;
}

std::vector<std::string_view> numbers_of(std::string_view text) {
  std::vector<std::string_view> numbers;
  for (std::size_t at = 0; (at = text.find_first_of(kDigits, at)) != std::string::npos;) {
    numbers.push_back(text.substr(at, text.find_first_not_of(kDigits, at) - at));
    at += numbers.back().size();
  }
  return numbers;
}

// Of the first "Paragraph 7"; empty: there is none.
std::string_view paragraph_of(std::string_view gold) {
  constexpr std::string_view kName = "Paragraph ";
  for (std::size_t at = 0; (at = gold.find(kName, at)) != std::string::npos;) {
    at += kName.size();
    const std::string_view number = gold.substr(at, gold.find_first_not_of(kDigits, at) - at);
    if (!number.empty()) return number;
  }
  return "";
}

// Without comments and Markdown; empty: there is none.
std::string_view first_code_line(std::string_view answer) {
  answer.remove_prefix(std::min(answer.size(), answer.find_first_not_of('\n')));
  while (!answer.empty()) {
    const std::string_view line = answer.substr(0, answer.find('\n'));
    if (line.find_first_of("`#") == line.npos && line.find("//") == line.npos) return line;
    answer.remove_prefix(std::min(answer.size(), line.size() + 1));
  }
  return "";
}

}  // namespace

double number_match(std::string_view answer, std::string_view gold) {
  return plain_number(last_number(answer)) == plain_number(gold) ? 1 : 0;
}

double first_number_match(std::string_view answer, std::string_view gold) {
  const auto numbers = numbers_of(answer);
  return !numbers.empty() && numbers.front() == gold ? 1 : 0;
}

double word_f1(std::string_view answer, std::string_view gold) {
  const std::u32string answer_text = normalized(answer), gold_text = normalized(gold);
  Words said = words_of(answer_text), wanted = words_of(gold_text), common;
  std::sort(said.begin(), said.end());
  std::sort(wanted.begin(), wanted.end());
  std::set_intersection(said.begin(), said.end(), wanted.begin(), wanted.end(), std::back_inserter(common));
  if (common.empty()) return 0;
  const double same = static_cast<double>(common.size());
  const double precision = same / static_cast<double>(said.size()), recall = same / static_cast<double>(wanted.size());
  return 2 * precision * recall / (precision + recall);
}

double rouge_l(std::string_view answer, std::string_view gold) {
  const std::u32string answer_text = characters(answer), gold_text = characters(gold);
  const auto said = sentences_of(answer_text), wanted = sentences_of(gold_text);
  if (said.empty() || wanted.empty()) return 0;
  std::set<std::u32string_view> common;
  for (const Words& gold_sentence : wanted) {
    for (const Words& sentence : said) add_common_words(gold_sentence, sentence, common);
  }
  const double same = static_cast<double>(common.size());
  const double precision = same / static_cast<double>(different_words(said));
  const double recall = same / static_cast<double>(different_words(wanted));
  return 2 * (precision * recall / (precision + recall + 1e-8));
}

double class_match(std::string_view answer, std::string_view gold, const std::vector<std::string>& classes) {
  std::vector<std::string_view> named;
  for (const std::string& name : classes) {
    if (answer.find(name) != std::string::npos) named.emplace_back(name);
  }
  // "Other" in "Other number" names no class of its own. The script skips the one after each that it removes.
  for (std::size_t i = 0; i < named.size(); ++i) {
    const std::string_view name = named[i];
    if (name != gold && gold.find(name) != std::string::npos) named.erase(std::find(named.begin(), named.end(), name));
  }
  const bool is_right = std::find(named.begin(), named.end(), gold) != named.end();
  return is_right ? 1 / static_cast<double>(named.size()) : 0;
}

double paragraph_match(std::string_view answer, std::string_view gold) {
  const auto numbers = numbers_of(answer);
  if (numbers.empty()) return 0;
  const auto right = std::count(numbers.begin(), numbers.end(), paragraph_of(gold));
  return static_cast<double>(right) / static_cast<double>(numbers.size());
}

double code_similarity(std::string_view answer, std::string_view gold) {
  const std::string_view line = first_code_line(answer);
  if (line == gold) return 1;
  if (line.empty() || gold.empty()) return 0;
  const std::u32string said = characters(line), wanted = characters(gold);
  const std::size_t same = common_lengths(said, wanted).back(), all = said.size() + wanted.size();
  // Rounds halves to even, like Python.
  return std::nearbyint(100 * (1 - static_cast<double>(all - 2 * same) / static_cast<double>(all))) / 100;
}

}  // namespace a2sf
