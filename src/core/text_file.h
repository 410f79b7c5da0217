// A text file as a whole: tables of budgets, profiles, data.
#pragma once

#include <a2sf/result.h>

#include <cstddef>
#include <string>

namespace a2sf {

// `what` names the kind of file in errors ("budget table"). A file of more than `most` bytes is one.
Result<std::string> read_text_file(const std::string& path, const char* what, std::size_t most = std::size_t{64} << 20);

}  // namespace a2sf
