#include "http_server.h"

#include "http_connection.h"

#include <fmt/format.h>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <thread>
#include <utility>

namespace a2sf::app {

namespace net = boost::asio;
using boost::system::error_code;
using net::ip::tcp;

constexpr std::size_t kMostConnections = 4096;
constexpr auto kPause = std::chrono::milliseconds(20);

struct HttpServer::State {
  HttpContext context;
  tcp::acceptor acceptor{context.io};
  net::steady_timer timer{context.io};  // of accept()
  net::steady_timer drain_timer{context.io};
  std::chrono::steady_clock::time_point deadline;
  std::thread thread;

  void accept() {
    acceptor.async_accept([this](error_code error, tcp::socket socket) {
      if (error == net::error::operation_aborted || context.drains) return;
      if (error) return wait_and(timer, [this] { accept(); });  // no descriptors left: somebody will close theirs
      if (context.connections.size() < kMostConnections) start_connection(std::move(socket), context);
      accept();
    });
  }

  template <class Function>
  static void wait_and(net::steady_timer& timer, Function function) {
    timer.expires_after(kPause);
    timer.async_wait([function](error_code error) {
      if (!error) function();
    });
  }

  void join() {
    if (thread.joinable()) thread.join();
    context.readers.stop();
    context.readers.join();
  }

  void wait_for_the_last() {
    close_idle_connections(context);
    if (context.connections.empty() || std::chrono::steady_clock::now() >= deadline) return context.io.stop();
    wait_and(drain_timer, [this] { wait_for_the_last(); });
  }
};

Result<std::unique_ptr<HttpServer>> HttpServer::create(HttpOptions options) {
  error_code error;
  const std::string host = options.host == "localhost" ? "127.0.0.1" : options.host;
  const auto address = net::ip::make_address(host, error);
  if (error)
    return fail(ErrorKind::bad_input, fmt::format("--host {}: not an address such as 127.0.0.1 or ::1", options.host));
  auto state = std::make_unique<State>();
  const tcp::endpoint endpoint(address, options.port);
  state->acceptor.open(endpoint.protocol(), error);
  if (!error) state->acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) state->acceptor.bind(endpoint, error);
  if (!error) state->acceptor.listen(net::socket_base::max_listen_connections, error);
  if (error)
    return fail(ErrorKind::io,
                fmt::format("cannot listen on {} port {}: {}", options.host, options.port, error.message()));
  state->context.options = std::move(options);
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

HttpServer::HttpServer(std::unique_ptr<State> state) : state_(std::move(state)) {
  state_->accept();
  state_->thread = std::thread([this] { state_->context.io.run(); });
}

HttpServer::~HttpServer() {
  state_->context.io.stop();
  state_->join();
}

std::uint16_t HttpServer::port() const { return state_->acceptor.local_endpoint().port(); }

bool HttpServer::is_loopback() const { return state_->acceptor.local_endpoint().address().is_loopback(); }

serve::Scheduler::Notify HttpServer::notify() {
  HttpContext* context = &state_->context;
  return [context](serve::RequestId id, serve::Event event) {
    net::post(context->io, [=, event = std::move(event)]() mutable { deliver(*context, id, std::move(event)); });
  };
}

void HttpServer::serve(serve::Service& service) {
  net::post(state_->context.io, [this, &service] { state_->context.service = &service; });
}

void HttpServer::drain(std::chrono::seconds most) {
  net::post(state_->context.io, [this, most] {
    state_->context.drains = true;
    state_->acceptor.close();
    state_->deadline = std::chrono::steady_clock::now() + most;
    state_->wait_for_the_last();
  });
  state_->join();
}

}  // namespace a2sf::app
