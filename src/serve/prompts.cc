// What is to be continued: texts, token ids and conversations.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "serve/fields.h"
#include "serve/request.h"

namespace a2sf::serve {
namespace {

constexpr const char* kShapes = "should be a string, a list of strings, a list of token ids or a list of such lists";

bool is_token(const Json& json) {
  return json.is_number_unsigned() && json.get<std::uint64_t>() <= std::numeric_limits<std::int32_t>::max();
}

bool are_tokens(const Json& json) {
  return json.is_array() && !json.empty() && std::all_of(json.begin(), json.end(), is_token);
}

std::optional<Prompt> read_prompt(const Json& json) {
  if (json.is_string()) return json.get<std::string>();
  if (are_tokens(json)) return json.get<std::vector<Token>>();
  return std::nullopt;
}

// Parts of text, one after the other.
std::optional<std::string> read_parts(const Json& parts) {
  std::string text;
  for (const Json& part : parts) {
    if (!part.is_object() || part.value("type", Json()) != "text") return std::nullopt;
    const auto content = part.find("text");
    if (content == part.end() || !content->is_string()) return std::nullopt;
    text += content->get_ref<const std::string&>();
  }
  return text;
}

std::optional<std::string> read_content(const Json& message) {
  const auto content = message.find("content");
  if (content == message.end()) return std::nullopt;
  if (content->is_string()) return content->get<std::string>();
  return content->is_array() && !content->empty() ? read_parts(*content) : std::nullopt;
}

std::string read_role(const Json& message) {
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string()) return "";
  const auto& name = role->get_ref<const std::string&>();
  if (name == "developer") return "system";  // its newer name
  return name == "system" || name == "user" || name == "assistant" ? name : "";
}

}  // namespace

std::vector<Prompt> take_prompts(Fields& fields, const char* name) {
  const Json* json = fields.find(name);
  std::vector<Prompt> prompts;
  if (json == nullptr) {
    fields.refuse(name, "is missing");
  } else if (auto one = read_prompt(*json)) {
    prompts.push_back(std::move(*one));
  } else if (json->is_array() && !json->empty() && json->size() <= kMostSequences) {
    for (const Json& each : *json) {
      auto prompt = read_prompt(each);
      if (!prompt) {
        fields.refuse(name, kShapes);
        break;
      }
      prompts.push_back(std::move(*prompt));
    }
  } else {
    fields.refuse(name, fmt::format("{}, at most {}", kShapes, kMostSequences));
  }
  return prompts;
}

std::vector<ChatMessage> take_messages(Fields& fields) {
  const Json* json = fields.find("messages");
  std::vector<ChatMessage> messages;
  if (json == nullptr || !json->is_array() || json->empty()) {
    fields.refuse("messages", "should be a list of at least one message");
    return messages;
  }
  for (const Json& each : *json) {
    const auto name = [&](const char* field) { return fmt::format("messages[{}].{}", messages.size(), field); };
    const std::string role = each.is_object() ? read_role(each) : "";
    if (role.empty()) {
      fields.refuse(name("role"), "should be system, developer, user or assistant");
      break;
    }
    auto content = read_content(each);
    if (!content) {
      fields.refuse(name("content"), "should be a string, or a list of parts of the type text");
      break;
    }
    messages.push_back({role, std::move(*content)});
  }
  return messages;
}

}  // namespace a2sf::serve
