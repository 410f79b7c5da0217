#include "eval/tasks/record.h"

#include <a2sf/text.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/text_file.h"

namespace a2sf {
namespace {

using Json = nlohmann::json;

// Whether a value can be read as a text, and that text.
bool read_text(const Json& value, std::string& text) {
  if (value.is_number_integer()) {
    text = value.dump();
    return true;
  }
  if (!value.is_string()) return false;
  text = value.get<std::string>();
  return true;
}

bool read_texts(const Json& list, std::vector<std::string>& texts) {
  return list.is_array() && !list.empty() && std::all_of(list.begin(), list.end(), [&](const Json& value) {
           return read_text(value, texts.emplace_back());
         });
}

}  // namespace

tl::unexpected<Error> Record::wrong(std::string_view message) const {
  return fail(ErrorKind::bad_input, fmt::format("{}: {}", place_, message));
}

Result<std::string> Record::text(const char* field) const {
  std::string text;
  if (object_.contains(field) && read_text(object_[field], text)) return text;
  return wrong(fmt::format("there is no text \"{}\"", field));
}

Result<std::vector<std::string>> Record::fields(std::initializer_list<const char*> names) const {
  std::vector<std::string> texts;
  for (const char* name : names) {
    auto text = this->text(name);
    if (!text) return tl::unexpected(text.error());
    texts.push_back(std::move(*text));
  }
  return texts;
}

Result<std::vector<std::string>> Record::texts(const char* field) const {
  std::vector<std::string> texts;
  if (object_.contains(field) && read_texts(object_[field], texts)) return texts;
  return wrong(fmt::format("there are no texts \"{}\"", field));
}

Result<std::vector<std::string>> Record::texts(const char* field, const char* inner) const {
  std::vector<std::string> texts;
  const bool has_inner = object_.contains(field) && object_[field].is_object() && object_[field].contains(inner);
  if (has_inner && read_texts(object_[field][inner], texts)) return texts;
  return wrong(fmt::format("there are no texts \"{}\" in \"{}\"", inner, field));
}

Result<std::vector<Record>> read_records(const std::string& path, std::size_t limit) {
  const auto text = read_text_file(path, "data file");
  if (!text) return tl::unexpected(text.error());
  return parse_records(*text, path, limit);
}

Result<std::vector<Record>> parse_records(std::string_view text, const std::string& path, std::size_t limit) {
  std::vector<Record> records;
  std::string_view rest = text;
  for (std::size_t number = 1; !rest.empty() && (limit == 0 || records.size() < limit); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = fmt::format("{}, line {}", path, number);
    // The parser refuses what is not UTF-8.
    Json object = Json::parse(line, nullptr, false);
    if (!object.is_object()) return fail(ErrorKind::bad_input, place + ": this is no JSON object");
    records.emplace_back(std::move(object), place);
  }
  if (records.empty()) return fail(ErrorKind::bad_input, fmt::format("{} has no lines", path));
  return records;
}

}  // namespace a2sf
