// The results of an evaluation, item by item, in a file that an interrupted one goes on from.
#pragma once

#include <a2sf/result.h>
#include <nlohmann/json.hpp>

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "eval/outcome.h"

namespace a2sf {

struct ItemResult {
  std::string task;
  std::size_t shots = 0;
  std::string spec;               // as to_string() prints it, budget included
  nlohmann::ordered_json budget;  // as JSON documents have it: a count, a ratio, null
  std::string budget_hash;        // of the profile or table that the spec names; empty: none
  std::size_t item = 0;
  Outcome outcome;
};

// Lines of JSON: first what all of them were got with, then one object for each item, in the order in which they came:
// task, shots, spec, budget, budget_hash, item, and its outcome.
// Not thread safe; one process at a time.
class ItemResults {
 public:
  // Creates the file, or reads what is there. `origin` is an object that says what results follow from: a file with
  // another is an error that names the first difference. A last line without an end is what an interruption left, and
  // is cut off.
  static Result<ItemResults> open(const std::string& path, const nlohmann::ordered_json& origin);

  // The result of the same item, as far as it is known.
  const ItemResult* find(const ItemResult& asked) const;
  // Adds lines, and hands them to the operating system.
  Status add(const std::vector<ItemResult>& results);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  using Key = std::tuple<std::string, std::size_t, std::string, std::string, std::size_t>;
  static Key key_of(const ItemResult& result);

  Status read(const std::string& text, const nlohmann::ordered_json& origin);

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
  std::map<Key, ItemResult> results_;
};

}  // namespace a2sf
