// Token classes: how long tokens are remembered and how much attention to them counts, by what they are: digits, names,
// punctuation. Made from a text (a2sf tune --classes) or by a tagger (tools/tag).
//
// As a file it is a JSON object; keys that are not named here are ignored:
//   {"format": "a2sf-classes-1",
//    "vocabulary": 49152,                how many tokens the model knows
//    "classes": [{"name": "digits",
//                 "memory": 2,           above 0
//                 "weight": 0.5,         0 or more
//                 "tokens": [32, 33]},   ids; those that are in no list are of the last class
//                ...],
//    "texts": [{"name": "...", "hash": "..."}]}   what the factors were tuned on: text_hash() of each text; may be left
//                                                 out
#pragma once

#include <a2sf/result.h>
#include <a2sf/tuned_text.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace a2sf {

struct TokenClass {
  std::string name;
  double memory = 1;  // times that of the policy: alpha becomes 1 - (1 - alpha) / memory, but not less than 0
  double weight = 1;  // times what each row adds to a score
};

struct TokenClasses {
  std::vector<TokenClass> classes;     // none: they are still to be given
  std::vector<std::uint8_t> class_of;  // [token id]: its index in `classes`
  std::string file = {};               // where it was read from, as given; empty: from elsewhere
  std::vector<TunedText> texts = {};   // what the factors were tuned on

  const TokenClass& of(std::int32_t token) const { return classes[class_of[static_cast<std::size_t>(token)]]; }
};

// Fails unless the numbers are as said above, naming the class.
Status validate(const TokenClasses& classes);
Result<TokenClasses> parse_token_classes(std::string_view json);
Result<TokenClasses> read_token_classes(const std::string& path);
// The text of a file of classes.
std::string to_json(const TokenClasses& classes);

}  // namespace a2sf
