// HTTP in front of a service: one thread for all connections, another for reading bodies, which may take a while.
#pragma once

#include "serve/service.h"

#include <a2sf/result.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace a2sf::app {

struct HttpOptions {
  std::string host = "127.0.0.1";      // an address, or localhost
  std::uint16_t port = 8080;           // 0: any that is free
  std::vector<std::string> keys = {};  // any of which a client must present; none: nobody has to
  std::string cors = {};               // the origin whose pages may read answers; empty: none
  std::chrono::seconds ping{15};       // a stream on which nothing came for so long gets a comment; 0: none
};

class HttpServer {
 public:
  // Listens; until serve(), every request is answered with 503.
  static Result<std::unique_ptr<HttpServer>> create(HttpOptions options);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  std::uint16_t port() const;
  bool is_loopback() const;
  // Events of the service's engine go to the connections that wait for them.
  serve::Scheduler::Notify notify();
  // From now on requests are answered. The service must live until drain() returns.
  void serve(serve::Service& service);
  // Takes no more requests, and returns when those that run have ended, or after so long. Then nothing is answered.
  void drain(std::chrono::seconds most);

 private:
  struct State;
  explicit HttpServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace a2sf::app
