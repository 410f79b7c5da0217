// Why a request is not served: a value that the API can say.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace a2sf::serve {

// Statuses of HTTP, which is what clients of the API decide by.
enum class Refusal {
  bad_request = 400,
  unauthorized = 401,
  not_found = 404,
  wrong_method = 405,
  too_large = 413,
  queue_full = 429,
  header_too_large = 431,
  failed = 500,
  unavailable = 503
};

struct RequestError {
  Refusal refusal = Refusal::bad_request;
  std::string message;     // one line
  std::string param = {};  // the field that is to blame: "logit_bias", "messages[2].role"; empty: none is
  std::string code = {};   // a word for programs; empty: there is none
};

template <class T>
using Parsed = tl::expected<T, RequestError>;

inline tl::unexpected<RequestError> refuse(std::string param, std::string message, std::string code = {}) {
  return tl::unexpected<RequestError>(
      RequestError{Refusal::bad_request, std::move(message), std::move(param), std::move(code)});
}

}  // namespace a2sf::serve
