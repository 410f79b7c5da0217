#include <a2sf/profile.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <utility>
#include <vector>

#include "core/text_file.h"
#include "policy/json_members.h"
#include "policy/shipped_profiles.h"

namespace a2sf {
namespace {

using Table = std::vector<std::vector<double>>;

Result<Table> read_numbers(const Json& json, const char* key) {
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

// A table is an object of its own, or the whole profile.
Result<ShareTable> read_table(const Json& json) {
  if (member(json, "shares").is_null())
    return fail(ErrorKind::bad_input, "it should hold {\"shares\": [[number per KV head] per layer]}");
  ShareTable table;
  for (const auto& [key, numbers] : {std::pair{"shares", &table.shares},
                                     {"alphas", &table.alphas},
                                     {"memories", &table.memories},
                                     {"local", &table.local}}) {
    if (!json.contains(key)) continue;
    auto read = read_numbers(json[key], key);
    if (!read) return tl::unexpected(read.error());
    *numbers = std::move(*read);
  }
  if (!json.contains("mean")) return table;
  if (!json["mean"].is_number_integer() || json["mean"].get<std::int64_t>() < 1)
    return fail(ErrorKind::bad_input, "\"mean\" should be a whole number of tokens, 1 or more");
  table.mean = json["mean"].get<std::int64_t>();
  return table;
}

Status read_tables(const Json& json, Profile& profile) {
  const auto add = [&](const Json& each) -> Status {
    auto table = read_table(each);
    if (!table) return tl::unexpected(table.error());
    profile.tables.push_back(std::move(*table));
    return {};
  };
  if (!json.contains("tables")) return add(json);
  if (!json["tables"].is_array()) return fail(ErrorKind::bad_input, "\"tables\" should be a list");
  for (const Json& each : json["tables"]) {
    if (auto added = add(each); !added) return added;
  }
  return {};
}

// What is wrong here is no error: it says where a profile comes from, and changes nothing.
void read_origin(const Json& json, Profile& profile) {
  profile.policy = text_of(json, "policy");
  profile.model = text_of(json, "model");
  profile.model_hash = text_of(json, "model_hash");
  profile.texts = texts_of(json);
}

Json table_json(const ShareTable& table) {
  Json json = Json::object();
  if (table.mean > 0) json["mean"] = table.mean;
  json["shares"] = table.shares;
  if (!table.alphas.empty()) json["alphas"] = table.alphas;
  if (!table.memories.empty()) json["memories"] = table.memories;
  if (!table.local.empty()) json["local"] = table.local;
  return json;
}

}  // namespace

const ShareTable& Profile::table_for(std::int64_t mean) const {
  const auto distance = [&](const ShareTable& table) {
    return std::abs(std::log(static_cast<double>(std::max<std::int64_t>(1, table.mean)) / static_cast<double>(mean)));
  };
  return *std::min_element(tables.begin(), tables.end(),
                           [&](const ShareTable& a, const ShareTable& b) { return distance(a) < distance(b); });
}

bool Profile::was_tuned_on(std::string_view hash) const { return has_text(texts, hash); }

Status validate(const Profile& profile) {
  const auto is_positive = [](double number) { return number > 0 && std::isfinite(number); };
  const auto is_alpha = [](double alpha) { return alpha >= 0 && alpha <= 1; };
  const auto is_flag = [](double flag) { return flag == 0 || flag == 1; };
  if (profile.tables.empty()) return fail(ErrorKind::bad_input, "there is no table");
  std::int64_t mean = -1;
  for (const ShareTable& table : profile.tables) {
    if (table.mean <= mean) return fail(ErrorKind::bad_input, "the tables are not in the order of their means");
    mean = table.mean;
    auto valid = check_table(table.shares, profile.tables.front().shares, "shares", is_positive, "finite and above 0");
    if (valid && !table.alphas.empty())
      valid = check_table(table.alphas, table.shares, "alphas", is_alpha, "from 0 to 1");
    if (valid && !table.memories.empty())
      valid = check_table(table.memories, table.shares, "memories", is_positive, "finite and above 0");
    if (valid && !table.local.empty()) valid = check_table(table.local, table.shares, "local", is_flag, "0 or 1");
    if (!valid) return valid;
    if (!table.alphas.empty() && !table.memories.empty())
      return fail(ErrorKind::bad_input, "a table has alphas or memories, not both");
  }
  return {};
}

Result<Profile> parse_profile(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  Profile profile;
  if (auto read = read_tables(json, profile); !read) return tl::unexpected(read.error());
  read_origin(json, profile);
  if (auto valid = validate(profile); !valid) return tl::unexpected(valid.error());
  return profile;
}

Result<Profile> read_profile(const std::string& path) {
  std::error_code ignored;
  if (const auto* shipped = find_shipped_profile(path); shipped != nullptr && !std::filesystem::exists(path, ignored))
    return *shipped;
  const auto text = read_text_file(path, "profile");
  if (!text) return tl::unexpected(text.error());
  auto profile = parse_profile(*text);
  if (!profile) return fail(profile.error().kind, fmt::format("'{}' is no profile: {}", path, profile.error().message));
  profile->file = path;
  return profile;
}

std::string to_json(const Profile& profile) {
  Json json = Json::object();
  if (!profile.policy.empty()) json["policy"] = profile.policy;
  if (!profile.model.empty()) json["model"] = profile.model;
  if (!profile.model_hash.empty()) json["model_hash"] = profile.model_hash;
  add_texts(json, profile.texts);
  for (const ShareTable& table : profile.tables) json["tables"].push_back(table_json(table));
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace a2sf
