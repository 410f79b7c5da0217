// The fields of a JSON object that a stranger wrote.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/error.h"

namespace a2sf::serve {

using Json = nlohmann::ordered_json;

// On one line; what is no UTF-8 is replaced, so that it never throws for that.
std::string dump(const Json& json);

// An object that is nested no deeper than any request needs to be, or why the text is none.
Parsed<Json> parse_object(std::string_view text);

// Takes fields one by one. A field that is null is absent. The first one that is not what it should be is the error,
// whatever is taken after it.
class Fields {
 public:
  // `path` comes before the names in errors: "a2sf.". The object must outlive this one.
  explicit Fields(const Json& object, std::string path = "") : object_(object), path_(std::move(path)) {}

  const Json* find(const char* name);  // nullptr: absent

  bool flag(const char* name, bool otherwise);
  std::optional<std::int64_t> whole(const char* name, std::int64_t least, std::int64_t most);
  std::optional<double> number(const char* name, double least, double most);
  std::optional<std::string> text(const char* name);
  // An object, or nullptr.
  const Json* object(const char* name);

  void refuse(const std::string& name, std::string message);
  const std::optional<RequestError>& error() const { return error_; }
  // Fields that nobody has asked for.
  std::size_t unknown() const;

 private:
  const Json& object_;
  std::string path_;
  std::vector<std::string_view> known_;
  std::optional<RequestError> error_;
};

}  // namespace a2sf::serve
