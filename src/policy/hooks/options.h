// What the options of hooks share.
#pragma once

#include <a2sf/result.h>

#include <fmt/format.h>

#include <charconv>
#include <string_view>

namespace a2sf {

inline Result<int> parse_whole(std::string_view option, std::string_view value, int least, int most) {
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error == std::errc{} && end == value.data() + value.size() && number >= least && number <= most) return number;
  return fail(ErrorKind::bad_input,
              fmt::format("{} '{}' is not a whole number from {} to {}", option, value, least, most));
}

}  // namespace a2sf
