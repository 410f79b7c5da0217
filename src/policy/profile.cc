#include <a2sf/profile.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/text_file.h"
#include "policy/budget.h"

namespace a2sf {
namespace {

using Json = nlohmann::json;
using Table = std::vector<std::vector<double>>;

Result<Table> read_table(const Json& json, const char* key) {
  const auto malformed = [&] {
    return fail(ErrorKind::bad_input, fmt::format("\"{}\" should be [[number per KV head] per layer]", key));
  };
  if (!json.is_array() || json.empty()) return malformed();
  Table table;
  for (const Json& layer : json) {
    if (!layer.is_array()) return malformed();
    auto& row = table.emplace_back();
    for (const Json& value : layer) {
      if (!value.is_number()) return malformed();
      row.push_back(value.get<double>());
    }
  }
  return table;
}

// As many layers and KV heads as `shape`, every number as `allowed` says.
Status check_table(const Table& table, const Table& shape, const char* key, bool (*allowed)(double),
                   const char* allowed_text) {
  if (table.size() != shape.size() || table.empty()) {
    return fail(ErrorKind::bad_input, fmt::format("{} of {} layers, shares of {}", key, table.size(), shape.size()));
  }
  for (std::size_t layer = 0; layer < table.size(); ++layer) {
    const auto& row = table[layer];
    if (row.size() != shape.front().size() || row.empty()) {
      return fail(ErrorKind::bad_input, fmt::format("{} of {} KV heads in layer {}, shares of {} in layer 0", key,
                                                    row.size(), layer, shape.front().size()));
    }
    const auto wrong = std::find_if_not(row.begin(), row.end(), allowed);
    if (wrong != row.end()) {
      return fail(ErrorKind::bad_input, fmt::format("{} {} of layer {}, KV head {} is not {}", key, *wrong, layer,
                                                    wrong - row.begin(), allowed_text));
    }
  }
  return {};
}

// One head's part of what is shared out.
struct Part {
  double share;
  bool has_least = false;  // it gets the least instead of its share
  std::int64_t tokens = 0;
  double remainder = 0;  // what rounding down took
};

// Shares relative to the largest, so that their sum cannot overflow.
std::vector<Part> parts_of(const Profile& profile, const std::vector<LayerRange>& bounded) {
  double largest = 0;
  for (const auto& layer : profile.shares) largest = std::max(largest, *std::max_element(layer.begin(), layer.end()));
  std::vector<Part> parts;
  for (std::size_t layer = 0; layer < profile.shares.size(); ++layer) {
    if (!includes(bounded, static_cast<int>(layer))) continue;
    for (const double share : profile.shares[layer]) parts.push_back({.share = share / largest});
  }
  return parts;
}

double sum_of_shares(const std::vector<Part>& parts) {
  double sum = 0;
  for (const Part& part : parts) sum += part.has_least ? 0 : part.share;
  return sum;
}

// Gives the least to every head whose share would be less, until none is: each leaves less to the others. Returns what
// is left for them.
std::int64_t give_least(std::vector<Part>& parts, std::int64_t total, std::int64_t least) {
  for (bool all_given = false; !all_given;) {
    all_given = true;
    const double shares = sum_of_shares(parts);
    const auto rest = static_cast<double>(total);
    for (Part& part : parts) {
      if (part.has_least || rest * part.share / shares >= static_cast<double>(least)) continue;
      part.has_least = true;
      part.tokens = least;
      total -= least;
      all_given = false;
    }
  }
  return total;
}

// Gives the others their shares of the rest: rounded down, then one more to the largest remainders.
void give_shares(std::vector<Part>& parts, std::int64_t rest) {
  const double shares = sum_of_shares(parts);
  std::vector<Part*> by_remainder;
  std::int64_t left = rest;
  for (Part& part : parts) {
    if (part.has_least) continue;
    const double exact = static_cast<double>(rest) * part.share / shares;
    part.tokens = static_cast<std::int64_t>(exact);
    part.remainder = exact - std::floor(exact);
    left -= part.tokens;
    by_remainder.push_back(&part);
  }
  std::stable_sort(by_remainder.begin(), by_remainder.end(),
                   [](const Part* a, const Part* b) { return a->remainder > b->remainder; });
  for (Part* part : by_remainder) {
    if (left-- > 0) ++part->tokens;
  }
}

}  // namespace

Status validate(const Profile& profile) {
  const auto is_share = [](double share) { return share > 0 && std::isfinite(share); };
  const auto is_alpha = [](double alpha) { return alpha >= 0 && alpha <= 1; };
  auto valid = check_table(profile.shares, profile.shares, "shares", is_share, "finite and above 0");
  if (!valid || profile.alphas.empty()) return valid;
  return check_table(profile.alphas, profile.shares, "alphas", is_alpha, "from 0 to 1");
}

Result<Profile> parse_profile(std::string_view text) {
  const Json document = Json::parse(text, nullptr, false);
  if (!document.is_object() || !document.contains("shares")) {
    return fail(ErrorKind::bad_input, "it should hold {\"shares\": [[number per KV head] per layer]}");
  }
  Profile profile;
  for (const auto& [key, table] : {std::pair{"shares", &profile.shares}, {"alphas", &profile.alphas}}) {
    if (!document.contains(key)) continue;
    auto numbers = read_table(document[key], key);
    if (!numbers) return tl::unexpected(numbers.error());
    *table = std::move(*numbers);
  }
  if (auto valid = validate(profile); !valid) return tl::unexpected(valid.error());
  return profile;
}

Result<Profile> read_profile(const std::string& path) {
  const auto text = read_text_file(path, "profile");
  if (!text) return tl::unexpected(text.error());
  auto profile = parse_profile(*text);
  if (!profile) return fail(profile.error().kind, fmt::format("'{}' is no profile: {}", path, profile.error().message));
  profile->file = path;
  return profile;
}

std::vector<std::vector<std::int64_t>> share_out(const Profile& profile, std::int64_t mean, std::int64_t least,
                                                 const std::vector<LayerRange>& bounded) {
  std::vector<Part> parts = parts_of(profile, bounded);
  give_shares(parts, give_least(parts, mean * std::ssize(parts), least));
  std::vector<std::vector<std::int64_t>> budgets;
  auto part = parts.begin();
  for (std::size_t layer = 0; layer < profile.shares.size(); ++layer) {
    auto& row = budgets.emplace_back(profile.shares[layer].size(), kKeepAll);
    if (!includes(bounded, static_cast<int>(layer))) continue;
    for (std::int64_t& budget : row) budget = (part++)->tokens;
  }
  return budgets;
}

}  // namespace a2sf
