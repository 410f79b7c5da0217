#include "tables.h"

#include "messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

namespace a2sf::app {

std::string aligned_table(const std::vector<std::vector<std::string>>& cells) {
  auto rows = cells;
  for (auto& row : rows) std::transform(row.begin(), row.end(), row.begin(), harmless);
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += i == 0 ? fmt::format("{:<{}}", row[i], widths[i]) : fmt::format("   {:>{}}", row[i], widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string with_commas(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

std::string counted(std::size_t count, const char* noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string bytes_text(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit < 4) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

std::string rate_text(double tokens_per_s) {
  return fmt::format("{:.{}f} tok/s", tokens_per_s, tokens_per_s < 9.95 ? 1 : 0);
}

std::string model_title(const ModelInfo& info) {
  std::string stem = std::filesystem::path(info.path).stem().string();
  const std::size_t dot = stem.rfind('.');
  if (dot != std::string::npos) stem[dot] = ' ';
  return harmless(stem);
}

}  // namespace a2sf::app
