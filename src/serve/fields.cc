#include "serve/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace a2sf::serve {
namespace {

constexpr int kDeepest = 16;
constexpr int kMostMembers = 4096;  // of all objects: each new one is compared with those before it

struct Shape {
  int depth = 0, members = 0;
};

// How deep brackets are nested, and how many members there are, those in strings left out: the text need not be JSON.
Shape shape_of(std::string_view text) {
  int depth = 0;
  Shape shape;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string && c == '\\') {
      ++i;
    } else if (c == '"') {
      in_string = !in_string;
    } else if (!in_string && (c == '[' || c == '{')) {
      shape.depth = std::max(shape.depth, ++depth);
    } else if (!in_string && (c == ']' || c == '}')) {
      --depth;
    } else if (!in_string && c == ':') {
      ++shape.members;
    }
  }
  return shape;
}

// Not a number is in no range.
std::optional<double> in_range(const Json& value, double least, double most) {
  if (!value.is_number()) return std::nullopt;
  const auto number = value.get<double>();
  return number >= least && number <= most ? std::optional(number) : std::nullopt;
}

}  // namespace

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Parsed<Json> parse_object(std::string_view text) {
  const Shape shape = shape_of(text);
  if (shape.depth > kDeepest)
    return serve::refuse("", fmt::format("the body is nested deeper than {} levels", kDeepest));
  if (shape.members > kMostMembers)
    return serve::refuse("", fmt::format("the body has more than {} members", kMostMembers));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return serve::refuse("", "the body is no valid JSON in UTF-8");
  if (!json.is_object()) return serve::refuse("", "the body should be a JSON object");
  return json;
}

const Json* Fields::find(const char* name) {
  known_.emplace_back(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool Fields::flag(const char* name, bool otherwise) {
  const Json* value = find(name);
  if (value == nullptr) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  refuse(name, "should be true or false");
  return otherwise;
}

std::optional<std::int64_t> Fields::whole(const char* name, std::int64_t least, std::int64_t most) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const auto number = in_range(*value, static_cast<double>(least), static_cast<double>(most));
  if (number && *number == std::floor(*number)) return static_cast<std::int64_t>(*number);
  refuse(name, fmt::format("should be a whole number from {} to {}", least, most));
  return std::nullopt;
}

std::optional<double> Fields::number(const char* name, double least, double most) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const auto number = in_range(*value, least, most);
  if (!number) refuse(name, fmt::format("should be a number from {} to {}", least, most));
  return number;
}

std::optional<std::string> Fields::text(const char* name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  refuse(name, "should be a string");
  return std::nullopt;
}

const Json* Fields::object(const char* name) {
  const Json* value = find(name);
  if (value == nullptr || value->is_object()) return value;
  refuse(name, "should be an object");
  return nullptr;
}

void Fields::refuse(const std::string& name, std::string message) {
  if (error_) return;
  const std::string param = path_ + name;
  error_ = RequestError{Refusal::bad_request, fmt::format("{}: {}", param, message), param};
}

std::size_t Fields::unknown() const {
  std::size_t count = 0;
  for (const auto& field : object_.items())
    count += std::find(known_.begin(), known_.end(), field.key()) == known_.end() ? 1 : 0;
  return count;
}

}  // namespace a2sf::serve
