#include "eval/item_results.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/text_file.h"

namespace a2sf {
namespace {

using Json = nlohmann::ordered_json;

tl::unexpected<Error> cannot(const char* what, const std::string& path) {
  return fail(ErrorKind::io, fmt::format("cannot {} {}: {}", what, path, std::strerror(errno)));
}

Json json_of(const ItemResult& result) {
  Json json = {{"task", result.task},
               {"shots", result.shots},
               {"spec", result.spec},
               {"budget", result.budget},
               {"budget_hash", result.budget_hash},
               {"item", result.item}};
  write_outcome(result.outcome, json);
  return json;
}

// Whether a line is a result, and which.
bool read_result(const Json& json, ItemResult& result) {
  if (!json.is_object() || !json.contains("budget")) return false;
  for (const char* key : {"task", "spec", "budget_hash"}) {
    if (!json.contains(key) || !json[key].is_string()) return false;
  }
  for (const char* key : {"shots", "item"}) {
    if (!json.contains(key) || !json[key].is_number_unsigned()) return false;
  }
  auto outcome = read_outcome(json);
  if (!outcome) return false;
  result = {json["task"],        json["shots"], json["spec"],       json["budget"],
            json["budget_hash"], json["item"],  std::move(*outcome)};
  return true;
}

// The first thing in which a file's origin differs, in words; empty: none.
std::string difference(const Json& there, const Json& here) {
  for (const auto& [key, value] : here.items()) {
    if (!there.contains(key)) return fmt::format("it does not say its {}", key);
    if (there[key] != value) return fmt::format("its {} is {}, now it is {}", key, there[key].dump(), value.dump());
  }
  return "";
}

}  // namespace

Result<ItemResults> ItemResults::open(const std::string& path, const nlohmann::ordered_json& origin) {
  ItemResults results;
  results.path_ = path;
  std::error_code error;
  std::string text;
  if (std::filesystem::exists(path, error)) {
    auto read = read_text_file(path, "file of results", std::size_t{1} << 32);
    if (!read) return tl::unexpected(read.error());
    text = std::move(*read);
    const std::size_t whole = text.rfind('\n') + 1;
    if (whole < text.size()) std::filesystem::resize_file(path, whole, error);
    if (error) return fail(ErrorKind::io, fmt::format("cannot cut {}: {}", path, error.message()));
    text.resize(whole);
    if (auto parsed = results.read(text, origin); !parsed) return tl::unexpected(parsed.error());
  }
  results.file_.reset(std::fopen(path.c_str(), "ab"));
  if (results.file_ == nullptr) return cannot("write", path);
  if (!text.empty()) return results;
  const std::string line = origin.dump() + "\n";
  if (std::fwrite(line.data(), 1, line.size(), results.file_.get()) != line.size() ||
      std::fflush(results.file_.get()) != 0) {
    return cannot("write", path);
  }
  return results;
}

Status ItemResults::read(const std::string& text, const nlohmann::ordered_json& origin) {
  std::string_view rest = text;
  for (std::size_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(line.size() + 1);
    const Json json = Json::parse(line, nullptr, false);
    if (number == 1) {
      if (!json.is_object()) return fail(ErrorKind::bad_input, fmt::format("{} is no file of results", path_));
      const std::string differs = difference(json, origin);
      if (differs.empty()) continue;
      return fail(ErrorKind::bad_input,
                  fmt::format("{} has results of another evaluation: {}; choose another -o", path_, differs));
    }
    ItemResult result;
    if (!read_result(json, result))
      return fail(ErrorKind::bad_input, fmt::format("{}, line {}: this is no result", path_, number));
    Key key = key_of(result);
    results_.insert_or_assign(std::move(key), std::move(result));
  }
  return {};
}

ItemResults::Key ItemResults::key_of(const ItemResult& result) {
  return {result.task, result.shots, result.spec, result.budget_hash, result.item};
}

const ItemResult* ItemResults::find(const ItemResult& asked) const {
  const auto found = results_.find(key_of(asked));
  return found == results_.end() ? nullptr : &found->second;
}

Status ItemResults::add(const std::vector<ItemResult>& results) {
  std::string lines;
  for (const ItemResult& result : results) {
    lines += json_of(result).dump() + "\n";
    results_.insert_or_assign(key_of(result), result);
  }
  if (std::fwrite(lines.data(), 1, lines.size(), file_.get()) != lines.size() || std::fflush(file_.get()) != 0)
    return cannot("write", path_);
  return {};
}

}  // namespace a2sf
