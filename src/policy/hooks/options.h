// The options that hooks of the registry have.
#pragma once

#include <a2sf/result.h>

#include <string_view>

namespace a2sf {

// Read a number from `least` to `most`, with nothing after it.
Result<int> read_whole_number(std::string_view option, std::string_view value, int least, int most);
Result<double> read_number(std::string_view option, std::string_view value, double least, double most);

}  // namespace a2sf
