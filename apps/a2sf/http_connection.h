// Connections of clients: requests one after the other, each answered by the service.
#pragma once

#include "http_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/thread_pool.hpp>

#include <memory>
#include <unordered_map>
#include <unordered_set>

namespace a2sf::app {

class Connection;

// What all connections share. Of the io thread alone, but for `readers`. The order matters: what is left in `io` at the
// end still uses what comes before it.
struct HttpContext {
  HttpOptions options;
  std::unordered_set<Connection*> connections = {};
  boost::asio::io_context io{1};
  boost::asio::thread_pool readers{1};
  serve::Service* service = nullptr;  // nullptr: it is loading
  bool drains = false;
  serve::RequestId last_id = 0;
  std::unordered_map<serve::RequestId, std::shared_ptr<Connection>> requests = {};  // who waits for their events
};

// It lives until the client or the server has had enough.
void start_connection(boost::asio::ip::tcp::socket socket, HttpContext& context);
void deliver(HttpContext& context, serve::RequestId id, serve::Event event);
void close_idle_connections(HttpContext& context);

}  // namespace a2sf::app
