// Models that tools/fetch keeps, by the names it has for them.
#pragma once

#include <string>

namespace a2sf::app {

// `text` where a file of this name exists or the name is none of tools/fetch's; otherwise the file that tools/fetch
// keeps. Ends the command if that is not there, or if `text` can only be a name.
std::string model_file(const std::string& text);

}  // namespace a2sf::app
