#include "policy/hooks/options.h"

#include <fmt/format.h>

#include <charconv>

namespace a2sf {

Result<double> read_number(std::string_view option, std::string_view value, double least, double most) {
  double number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error == std::errc{} && end == value.data() + value.size() && number >= least && number <= most) return number;
  return fail(ErrorKind::bad_input, fmt::format("{} '{}' is not a number from {} to {}", option, value, least, most));
}

}  // namespace a2sf
