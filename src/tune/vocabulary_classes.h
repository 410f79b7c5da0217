// Token classes of a vocabulary, by the spelling of its pieces and the statistics of a text.
#pragma once

#include <a2sf/text.h>
#include <a2sf/token_classes.h>

#include <string_view>

namespace a2sf {

// White space and punctuation; digits; function words, which are the most frequent lower-case words of the text;
// capitalised words; the rest, control tokens and parts of words among it. Each with memory and weight 1.
TokenClasses classes_of_vocabulary(const Tokenizer& tokenizer, std::string_view text);

// Whether the bytes of a token are of one kind; the space before a word does not count.
enum class PieceKind { punctuation, digits, lower_word, capitalised, rest };
PieceKind kind_of_piece(std::string_view piece);

}  // namespace a2sf
