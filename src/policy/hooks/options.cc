#include "policy/hooks/options.h"

#include <fmt/format.h>

#include <charconv>

namespace a2sf {
namespace {

// Not a number is in no range.
template <class Number>
Result<Number> read(std::string_view option, std::string_view value, Number least, Number most, const char* kind) {
  Number number{};
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error == std::errc{} && end == value.data() + value.size() && number >= least && number <= most) return number;
  return fail(ErrorKind::bad_input, fmt::format("{} '{}' is not {} from {} to {}", option, value, kind, least, most));
}

}  // namespace

Result<int> read_whole_number(std::string_view option, std::string_view value, int least, int most) {
  return read(option, value, least, most, "a whole number");
}

Result<double> read_number(std::string_view option, std::string_view value, double least, double most) {
  return read(option, value, least, most, "a number");
}

}  // namespace a2sf
