// Any bytes as a profile: an error of one line, or budgets whose sum is exact.
#include <a2sf/profile.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace {

void require(bool holds) {
  if (!holds) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 4) return 0;
  std::uint16_t mean = 0, least = 0;  // the first four bytes
  std::memcpy(&mean, data, 2);
  std::memcpy(&least, data + 2, 2);
  const auto profile = a2sf::parse_profile({reinterpret_cast<const char*>(data) + 4, size - 4});
  if (!profile) {
    require(!profile.error().message.empty() && profile.error().message.find('\n') == std::string::npos);
    return 0;
  }
  require(a2sf::validate(*profile).has_value());
  if (mean == 0) return 0;
  least = static_cast<std::uint16_t>(1 + least % mean);
  std::int64_t total = 0, heads = 0;
  for (const auto& layer : a2sf::share_out(*profile, mean, least)) {
    for (const std::int64_t budget : layer) {
      require(budget >= least);
      total += budget;
      ++heads;
    }
  }
  require(total == mean * heads);
  return 0;
}
