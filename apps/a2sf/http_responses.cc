#include "http_responses.h"

#include <fmt/format.h>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/write.hpp>

#include <sstream>
#include <utility>

namespace a2sf::app {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;

template <class Body>
http::response<Body> new_response(const ResponseHead& head, http::status status, std::string_view type) {
  const auto view = [](std::string_view text) { return beast::string_view(text.data(), text.size()); };
  http::response<Body> response(status, head.version);
  response.set(http::field::server, fmt::format("a2sf/{}", version()));
  response.set(http::field::content_type, view(type));
  if (!head.cors.empty()) response.set(http::field::access_control_allow_origin, view(head.cors));
  response.keep_alive(head.keep_alive);
  return response;
}

}  // namespace

Response text_response(const ResponseHead& head, std::string body, std::string_view type) {
  auto response = new_response<http::string_body>(head, http::status::ok, type);
  response.body() = std::move(body);
  response.prepare_payload();
  return response;
}

Response page_response(const ResponseHead& head, const PageFile& file) {
  auto response = text_response(head, std::string(file.text), file.type);
  response.set("Content-Security-Policy",
               "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
               "base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
  response.set("X-Content-Type-Options", "nosniff");
  response.set("Referrer-Policy", "no-referrer");
  response.set(http::field::cache_control, "no-cache");  // another version may listen here tomorrow
  return response;
}

Response error_response(const ResponseHead& head, const serve::RequestError& error) {
  const auto status = static_cast<http::status>(error.refusal);
  auto response = new_response<http::string_body>(head, status, "application/json");
  if (error.refusal == serve::Refusal::queue_full) response.set(http::field::retry_after, "1");
  if (error.refusal == serve::Refusal::unauthorized) response.set(http::field::www_authenticate, "Bearer");
  response.body() = serve::error_document(error);
  response.prepare_payload();
  return response;
}

Response preflight_response(const ResponseHead& head, std::string_view headers) {
  auto response = new_response<http::string_body>(head, http::status::no_content, "text/plain");
  response.set(http::field::access_control_allow_methods, "GET, POST");
  response.set(http::field::access_control_allow_headers, headers.empty() ? "Authorization, Content-Type" : headers);
  response.prepare_payload();
  return response;
}

bool ends_with_connection(const ResponseHead& head) { return head.version != 11 || !head.keep_alive; }

std::string stream_head(const ResponseHead& head) {
  auto response = new_response<http::empty_body>(head, http::status::ok, "text/event-stream");
  response.set(http::field::cache_control, "no-cache");
  response.keep_alive(!ends_with_connection(head));
  if (head.version == 11) response.chunked(true);
  std::ostringstream text;
  text << response.base();
  return text.str();
}

std::string stream_part(const ResponseHead& head, const std::string& text) {
  return head.version == 11 ? fmt::format("{:x}\r\n{}\r\n", text.size(), text) : text;
}

}  // namespace a2sf::app
