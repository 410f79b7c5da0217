#include "http_routes.h"

#include <fmt/format.h>

#include <algorithm>

namespace a2sf::app {
namespace {

using serve::Refusal;
using serve::RequestError;

struct RouteRow {
  std::string_view path, method;
  Route route;
};
constexpr RouteRow kRoutes[] = {{"/health", "GET", Route::health},
                                {"/metrics", "GET", Route::metrics},
                                {"/v1/models", "GET", Route::models},
                                {"/props", "GET", Route::props},
                                {"/tokenizer_info", "GET", Route::tokenizer_info},
                                {"/v1/completions", "POST", Route::completion},
                                {"/v1/chat/completions", "POST", Route::chat},
                                {"/tokenize", "POST", Route::tokenize},
                                {"/detokenize", "POST", Route::detokenize}};

// Without what follows a question mark.
std::string_view path_of(std::string_view target) { return target.substr(0, target.find('?')); }

// In a time that does not say where they differ.
bool is_same(std::string_view given, std::string_view key) {
  unsigned difference = given.size() == key.size() ? 0 : 1;
  for (std::size_t i = 0; i < given.size(); ++i)
    difference |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(key[i % key.size()]);
  return difference == 0;
}

bool has_key(std::string_view authorization, const std::vector<std::string>& keys) {
  const std::string_view given = key_of(authorization);
  bool known = false;
  for (const std::string& key : keys) known |= is_same(given, key);
  return known;
}

char lower(char letter) { return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter; }

}  // namespace

std::string_view key_of(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  const std::string_view scheme = authorization.substr(0, kScheme.size());
  const bool is_scheme = std::equal(scheme.begin(), scheme.end(), kScheme.begin(), kScheme.end(),
                                    [](char given, char wanted) { return lower(given) == wanted; });
  if (!is_scheme) return {};
  const std::size_t begin = authorization.find_first_not_of(' ', kScheme.size());
  return begin == std::string_view::npos ? std::string_view() : authorization.substr(begin);
}

const PageFile* find_page_file(const Asked& asked) {
  const auto files = page_files();
  const auto found = std::find_if(files.begin(), files.end(),
                                  [&](const PageFile& file) { return file.path == path_of(asked.target); });
  return asked.method != "GET" || found == files.end() ? nullptr : &*found;
}

serve::Parsed<Route> find_route(const Asked& asked, const std::vector<std::string>& keys) {
  const std::string_view path = path_of(asked.target);
  const auto* found =
      std::find_if(std::begin(kRoutes), std::end(kRoutes), [&](const RouteRow& row) { return row.path == path; });
  const bool is_open = keys.empty() || (found != std::end(kRoutes) && found->route == Route::health);
  if (!is_open && !has_key(asked.authorization, keys)) {
    return tl::unexpected<RequestError>(
        RequestError{Refusal::unauthorized, "a key is needed: Authorization: Bearer KEY", "", "invalid_api_key"});
  }
  if (found == std::end(kRoutes))
    return tl::unexpected<RequestError>(RequestError{Refusal::not_found, "there is nothing at this path"});
  if (asked.method != found->method) {
    return tl::unexpected<RequestError>(
        RequestError{Refusal::wrong_method, fmt::format("{} takes {}", found->path, found->method)});
  }
  return found->route;
}

}  // namespace a2sf::app
