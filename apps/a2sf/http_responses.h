// What is sent, as HTTP has it.
#pragma once

#include "http_server.h"
#include "page_files.h"

#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>

#include <string>
#include <string_view>

namespace a2sf::app {

using Response = boost::beast::http::response<boost::beast::http::string_body>;

// What all answers to a request have in common.
struct ResponseHead {
  unsigned version = 11;       // of HTTP: 10 or 11
  bool keep_alive = false;     // the connection may have further requests
  std::string_view cors = {};  // the origin whose pages may read the answer; empty: none
};

Response text_response(const ResponseHead& head, std::string body, std::string_view type = "application/json");
// A file of the page: it may load its own scripts and styles and ask this server, and nothing else.
Response page_response(const ResponseHead& head, const PageFile& file);
Response error_response(const ResponseHead& head, const serve::RequestError& error);
// Tells a browser what pages of that origin may ask for. `headers`: those that it wants to send.
Response preflight_response(const ResponseHead& head, std::string_view headers);

// A stream of events: its head, then its parts, the last of which is empty. In HTTP/1.0 its end is the connection's.
bool ends_with_connection(const ResponseHead& head);
std::string stream_head(const ResponseHead& head);
std::string stream_part(const ResponseHead& head, const std::string& text);

}  // namespace a2sf::app
