// Which paths there are, and who may ask.
#pragma once

#include "page_files.h"
#include "serve/error.h"

#include <string>
#include <string_view>
#include <vector>

namespace a2sf::app {

enum class Route { health, metrics, models, props, tokenizer_info, completion, chat, tokenize, detokenize };

struct Asked {
  std::string_view method, target, authorization;
};

// KEY of "Bearer KEY", the scheme in any case (RFC 7235); empty: there is none.
std::string_view key_of(std::string_view authorization);

// The file of the page that is asked for, which holds nothing of anybody and needs no key; nullptr: it is none.
const PageFile* find_page_file(const Asked& asked);

// What else is asked for, or why there is no answer. `keys`: any of which must be presented, but for /health; none:
// nobody has to.
serve::Parsed<Route> find_route(const Asked& asked, const std::vector<std::string>& keys);

}  // namespace a2sf::app
