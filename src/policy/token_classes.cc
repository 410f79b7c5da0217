#include <a2sf/token_classes.h>

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

#include "core/text_file.h"
#include "policy/json_members.h"

namespace a2sf {
namespace {

constexpr const char* kClassesFormat = "a2sf-classes-1";
constexpr std::size_t kMostTokens = 1 << 24, kMostClasses = 256;
constexpr double kMostFactor = 1e6;  // so that scores stay finite

Result<double> read_factor(const Json& json, const char* key, const std::string& name) {
  const Json& factor = member(json, key);
  if (factor.is_null()) return 1.0;
  if (!factor.is_number()) return malformed(fmt::format("class '{}': \"{}\" should be a number", name, key));
  return factor.get<double>();
}

Result<TokenClass> read_class(const Json& json) {
  const Json& name = member(json, "name");
  if (!name.is_string()) return malformed("each class should hold {\"name\", \"memory\", \"weight\", \"tokens\"}");
  TokenClass read{.name = name.get<std::string>()};
  const auto memory = read_factor(json, "memory", read.name), weight = read_factor(json, "weight", read.name);
  if (!memory) return tl::unexpected(memory.error());
  if (!weight) return tl::unexpected(weight.error());
  read.memory = *memory;
  read.weight = *weight;
  return read;
}

// Adds the ids of a class. `listed`: [token id], whether a list before had it.
Status read_tokens(const Json& json, std::size_t index, TokenClasses& classes, std::vector<char>& listed) {
  const std::string& name = classes.classes[index].name;
  const Json& tokens = member(json, "tokens");
  if (tokens.is_null()) return {};
  if (!tokens.is_array()) return malformed(fmt::format("class '{}': \"tokens\" should be a list of ids", name));
  for (const Json& token : tokens) {
    const auto most = static_cast<std::uint64_t>(listed.size());
    if (!token.is_number_unsigned() || token.get<std::uint64_t>() >= most) {
      return malformed(fmt::format("class '{}': {} is no token of a vocabulary of {}", name,
                                   token.is_primitive() ? token.dump() : token.type_name(), most));
    }
    const auto id = token.get<std::size_t>();
    if (listed[id] != 0) return malformed(fmt::format("class '{}': token {} is in a list already", name, id));
    listed[id] = 1;
    classes.class_of[id] = static_cast<std::uint8_t>(index);
  }
  return {};
}

}  // namespace

Status validate(const TokenClasses& classes) {
  for (const TokenClass& each : classes.classes) {
    if (!(each.memory >= 1 / kMostFactor && each.memory <= kMostFactor))
      return malformed(fmt::format("class '{}': memory {} is not {:g} to {:g}", each.name, each.memory, 1 / kMostFactor,
                                   kMostFactor));
    if (!(each.weight >= 0 && each.weight <= kMostFactor))
      return malformed(fmt::format("class '{}': weight {} is not 0 to {:g}", each.name, each.weight, kMostFactor));
  }
  for (const std::uint8_t index : classes.class_of) {
    if (index >= classes.classes.size()) return malformed("a token is of a class that is not there");
  }
  return {};
}

Result<TokenClasses> parse_token_classes(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (text_of(json, "format") != kClassesFormat)
    return malformed(fmt::format("it should hold {{\"format\": \"{}\", \"vocabulary\", \"classes\"}}", kClassesFormat));
  const Json& count = member(json, "vocabulary");
  const auto vocabulary = count.is_number_unsigned() ? count.get<std::uint64_t>() : 0;
  if (vocabulary < 1 || vocabulary > kMostTokens)
    return malformed(fmt::format("\"vocabulary\" should be a whole number from 1 to {}", kMostTokens));
  const Json& list = member(json, "classes");
  if (!list.is_array() || list.empty() || list.size() > kMostClasses)
    return malformed(fmt::format("\"classes\" should be a list of 1 to {}", kMostClasses));
  TokenClasses classes;
  classes.texts = texts_of(json);
  for (const Json& each : list) {
    auto read = read_class(each);
    if (!read) return tl::unexpected(read.error());
    classes.classes.push_back(std::move(*read));
  }
  classes.class_of.assign(vocabulary, static_cast<std::uint8_t>(list.size() - 1));
  std::vector<char> listed(vocabulary, 0);
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (auto read = read_tokens(list[i], i, classes, listed); !read) return tl::unexpected(read.error());
  }
  if (auto valid = validate(classes); !valid) return tl::unexpected(valid.error());
  return classes;
}

Result<TokenClasses> read_token_classes(const std::string& path) {
  const auto text = read_text_file(path, "file of token classes");
  if (!text) return tl::unexpected(text.error());
  auto classes = parse_token_classes(*text);
  if (!classes)
    return fail(classes.error().kind, fmt::format("'{}' holds no token classes: {}", path, classes.error().message));
  classes->file = path;
  return classes;
}

std::string to_json(const TokenClasses& classes) {
  Json json = {{"format", kClassesFormat}, {"vocabulary", classes.class_of.size()}};
  add_texts(json, classes.texts);
  json["classes"] = Json::array();
  for (const TokenClass& each : classes.classes)
    json["classes"].push_back({{"name", each.name}, {"memory", each.memory}, {"weight", each.weight}});
  // The ids of the last class need not be said.
  for (std::size_t id = 0; id < classes.class_of.size(); ++id) {
    if (classes.class_of[id] + 1U < classes.classes.size())
      json["classes"][classes.class_of[id]]["tokens"].push_back(id);
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace a2sf
