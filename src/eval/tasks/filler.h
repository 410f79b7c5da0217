// Text that says nothing of importance: what facts are hidden in.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/random_bits.h"

namespace a2sf {

inline constexpr std::size_t kFewestFillerWords = 8;  // of a sentence
inline constexpr std::size_t kFillerNames = 32;

// A sentence of at least so many words, without digits, from templates and lists of words.
std::string filler_sentence(RandomBits& random);
// A first name out of those that the sentences have.
std::string_view filler_name(RandomBits& random);

}  // namespace a2sf
