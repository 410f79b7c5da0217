// Members of JSON objects that come from outside: what is missing or of another kind reads as nothing.
#pragma once

#include <a2sf/result.h>
#include <a2sf/tuned_text.h>

#include <nlohmann/json.hpp>

#include <string>
#include <utility>
#include <vector>

namespace a2sf {

using Json = nlohmann::ordered_json;

inline tl::unexpected<Error> malformed(std::string what) { return fail(ErrorKind::bad_input, std::move(what)); }

// A reference, since a copy of what is nested deep would take as deep a recursion. null: it is not there.
inline const Json& member(const Json& json, const char* key) {
  static const Json nothing;
  return json.is_object() && json.contains(key) ? json[key] : nothing;
}

inline std::string text_of(const Json& json, const char* key) {
  const Json& text = member(json, key);
  return text.is_string() ? text.get<std::string>() : "";
}

// The member "texts" of what was tuned.
inline std::vector<TunedText> texts_of(const Json& json) {
  std::vector<TunedText> texts;
  const Json& list = member(json, "texts");
  if (!list.is_array()) return texts;
  for (const Json& text : list) texts.push_back({text_of(text, "name"), text_of(text, "hash")});
  return texts;
}

inline void add_texts(Json& json, const std::vector<TunedText>& texts) {
  for (const TunedText& text : texts) json["texts"].push_back({{"name", text.name}, {"hash", text.hash}});
}

}  // namespace a2sf
