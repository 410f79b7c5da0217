// A small text file as a whole: tables of budgets, profiles.
#pragma once

#include <a2sf/result.h>

#include <string>

namespace a2sf {

// `what` names the kind of file in errors ("budget table"). At most 64 MiB.
Result<std::string> read_text_file(const std::string& path, const char* what);

}  // namespace a2sf
