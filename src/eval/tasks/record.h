// A line of a file of JSON lines, read field by field.
#pragma once

#include <a2sf/result.h>
#include <nlohmann/json.hpp>

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace a2sf {

class Record {
 public:
  Record(nlohmann::json object, std::string place) : object_(std::move(object)), place_(std::move(place)) {}

  // Strings are valid UTF-8. A number counts as the text of its digits: labels are written either way.
  Result<std::string> text(const char* field) const;
  // Of several fields, in their order.
  Result<std::vector<std::string>> fields(std::initializer_list<const char*> names) const;
  // Of a list, which has at least one: {"answers": [...]}.
  Result<std::vector<std::string>> texts(const char* field) const;
  // Of a list inside an object: {"choices": {"text": [...]}}.
  Result<std::vector<std::string>> texts(const char* field, const char* inner) const;
  // "file, line N: MESSAGE".
  tl::unexpected<Error> wrong(std::string_view message) const;

 private:
  nlohmann::json object_;
  std::string place_;
};

// The first `limit` lines of a file (0: all), each an object. Blank lines count but are left out. At least one is
// there.
Result<std::vector<Record>> read_records(const std::string& path, std::size_t limit);
// The same of a file's text.
Result<std::vector<Record>> parse_records(std::string_view text, const std::string& path, std::size_t limit);

}  // namespace a2sf
