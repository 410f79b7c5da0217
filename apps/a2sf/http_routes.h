// Which paths there are, and who may ask.
#pragma once

#include "serve/error.h"

#include <string>
#include <string_view>
#include <vector>

namespace a2sf::app {

enum class Route { page, health, metrics, models, props, completion, chat, tokenize, detokenize };

struct Asked {
  std::string_view method, target, authorization;
};

std::string_view path_of(std::string_view target);  // without what follows a question mark

// What is asked for, or why there is no answer. `keys`: any of which must be presented, but for /health and the page's
// files, which hold nothing of anybody; none: nobody has to.
serve::Parsed<Route> find_route(const Asked& asked, const std::vector<std::string>& keys);

}  // namespace a2sf::app
