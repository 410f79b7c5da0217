#include "http_connection.h"

#include "http_responses.h"
#include "http_routes.h"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace a2sf::app {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using net::ip::tcp;
using serve::Refusal;
using serve::RequestError;

constexpr std::uint32_t kLongestHeader = 16 * 1024;
constexpr std::uint64_t kLongestBody = 4 << 20;
constexpr std::size_t kLongestPiece =
    128 * 1024;  // that is read and not understood yet: a chunk's header, for instance
constexpr auto kReadTime = std::chrono::seconds(30), kWriteTime = std::chrono::seconds(60);
constexpr auto kLingerTime = std::chrono::seconds(2);

std::string_view view(beast::string_view text) { return {text.data(), text.size()}; }

// Handlers hold a pointer to it: it is there as long as something is expected of its socket or of the engine.
class Connection : public std::enable_shared_from_this<Connection> {
  template <class Function>
  auto then(Function function) {
    return [self = shared_from_this(), function](error_code error, std::size_t = 0) { function(error); };
  }

 public:
  Connection(tcp::socket socket, HttpContext& context) : context_(context), stream_(std::move(socket)) {
    context_.connections.insert(this);
    error_code ignored;
    stream_.socket().non_blocking(true, ignored);
    stream_.socket().set_option(tcp::no_delay(true), ignored);
  }
  ~Connection() { context_.connections.erase(this); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // One deadline for all of a request, however slowly it comes.
  void read() {
    parser_.emplace();
    parser_->header_limit(kLongestHeader);
    parser_->body_limit(kLongestBody);
    stream_.expires_after(kReadTime);
    idle_ = true;
    http::async_read_header(stream_, buffer_, *parser_, then([this](error_code error) {
                              idle_ = false;
                              if (error) return refuse_broken(error);
                              take_header();
                            }));
  }

  void take(serve::Event event) {
    if (event.error && !begun_) {
      forget_request();
      return send_error(*event.error);
    }
    if (reply_->streams()) {
      add(held_, std::move(event));
      if (!writing_) write_events();
    } else if (std::string document = reply_->take(std::move(event)); reply_->done()) {
      forget_request();
      send(std::move(document));
    }
  }

  void close_if_idle() {
    if (idle_ && !parser_->got_some()) stream_.close();
  }

 private:
  // ---- a request comes

  void take_header() {
    const auto& header = parser_->get();
    version_ = header.version();
    keep_alive_ = header.keep_alive();
    if (header.method() == http::verb::options && !context_.options.cors.empty())
      return refuse_body(preflight_response(head(), view(header[http::field::access_control_request_headers])));
    const Asked asked{.method = view(header.method_string()),
                      .target = view(header.target()),
                      .authorization = view(header[http::field::authorization])};
    if (const PageFile* file = find_page_file(asked)) return refuse_body(page_response(head(), *file));
    const auto route = find_route(asked, context_.options.keys);
    if (!route) return refuse_body(refusal(route.error()));
    if (context_.drains || context_.service == nullptr) {
      const char* why = context_.drains ? "the server is about to end" : "the model is loading";
      return refuse_body(refusal({Refusal::unavailable, why}));
    }
    http::async_read(stream_, buffer_, *parser_, then([this, route = *route](error_code error) {
                       if (error) return refuse_broken(error);
                       answer(route);
                     }));
  }

  // An answer before the body has been read, if there is one: what comes next on this connection is not known.
  void refuse_body(Response response) {
    // Nor does a client that asked with HEAD expect a body.
    if (!parser_->is_done() || parser_->get().method() == http::verb::head) response.keep_alive(false);
    send(std::move(response));
  }

  void refuse_broken(error_code error) {
    const auto refuse = [&](Refusal refusal, const char* why) {
      keep_alive_ = false;
      send_error({refusal, why});
    };
    const bool is_gone = error == http::error::end_of_stream || error == http::error::partial_message;
    if (error == http::error::body_limit) return refuse(Refusal::too_large, "the body is larger than 4 MiB");
    if (error == http::error::header_limit) return refuse(Refusal::header_too_large, "the header is too large");
    if (!is_gone && error.category() == http::make_error_code(http::error::bad_version).category())
      return refuse(Refusal::bad_request, "this is no request of HTTP/1.1");
    stream_.close();  // gone, or too slow
  }

  // ---- it is answered

  void answer(Route route) {
    serve::Service& service = *context_.service;
    const serve::RequestReader& reader = service.reader();
    const auto send_document = [this](const serve::Json& document) { send(document.dump()); };
    switch (route) {
      case Route::health:
        return send(R"({"status":"ok"})");
      case Route::metrics:
        return send(service.metrics().text(), "text/plain; version=0.0.4");
      case Route::models:
        return send(service.models());
      case Route::props:
        return send(service.props());
      case Route::tokenizer_info:
        return send(service.tokenizer_info());
      case Route::tokenize:
        return read_body([&reader](const std::string& body) { return reader.tokenize(body); }, send_document);
      case Route::detokenize:
        return read_body([&reader](const std::string& body) { return reader.detokenize(body); }, send_document);
      case Route::completion:
      case Route::chat:
        const auto endpoint = route == Route::chat ? serve::Endpoint::chat : serve::Endpoint::completion;
        return read_body([&reader, endpoint](const std::string& body) { return reader.read(endpoint, body); },
                         [this](serve::ReadRequest read) { submit(std::move(read)); });
    }
  }

  // On the thread for that; what comes of it is used on this one.
  template <class Read, class Use>
  void read_body(Read read, Use use) {
    stream_.expires_never();
    watch();
    net::post(context_.readers, [self = shared_from_this(), read, use]() mutable {
      auto result = read(self->parser_->get().body());
      HttpContext& context = self->context_;
      net::post(context.io, [self = std::move(self), use, result = std::move(result)]() mutable {
        if (self->gone_) return;
        if (!result) return self->send_error(result.error());
        use(std::move(*result));
      });
    });
  }

  void submit(serve::ReadRequest read) {
    read.job.owner = key_of(view(parser_->get()[http::field::authorization]));
    id_ = ++context_.last_id;
    context_.requests.emplace(id_, shared_from_this());
    reply_.emplace(std::move(read.form), context_.service->tokenizer(), id_);
    begun_ = writing_ = failed_ = false;
    if (reply_->streams()) ping_when_quiet();
    context_.service->engine().submit(id_, std::move(read.job));
  }

  // Until there is an answer a client has nothing more to say: what can be read is its end. Of a client that says more
  // all the same the end is not noticed before the answer is written.
  void watch() {
    watching_ = true;
    stream_.socket().async_wait(tcp::socket::wait_read, then([this](error_code error) {
                                  if (error || !watching_) return;
                                  char byte = 0;
                                  stream_.socket().receive(net::buffer(&byte, 1), tcp::socket::message_peek, error);
                                  if (error == net::error::would_block) return watch();
                                  if (error) give_up();
                                }));
  }

  void give_up() {
    gone_ = true;
    if (id_ != 0) context_.service->engine().cancel(id_);
    forget_request();
    stream_.close();
  }

  void forget_request() {
    context_.requests.erase(id_);
    id_ = 0;
    quiet_.cancel();
  }

  // ---- the answer goes

  ResponseHead head() const {
    return {.version = version_, .keep_alive = keep_alive_ && !context_.drains, .cors = context_.options.cors};
  }

  Response refusal(const RequestError& error) {
    if (context_.service != nullptr) context_.service->metrics().count_refused(error.refusal);
    return error_response(head(), error);
  }

  void send_error(const RequestError& error) { send(refusal(error)); }
  void send(std::string body, std::string_view type = "application/json") {
    send(text_response(head(), std::move(body), type));
  }

  void send(Response response) {
    watching_ = false;
    response_ = std::move(response);
    keep_alive_ = response_.keep_alive();
    stream_.expires_after(kWriteTime);
    http::async_write(stream_, response_, then([this](error_code error) { finish(error); }));
  }

  // Proxies and clients take a stream on which nothing comes for a dead one.
  void ping_when_quiet() {
    if (context_.options.ping.count() == 0) return;
    quiet_.expires_after(context_.options.ping);
    quiet_.async_wait(then([this](error_code error) {
      if (!error && id_ != 0 && !writing_) write_events();
    }));
  }

  // While a slow client takes the last ones, the next events become one of each sequence: a stream takes no more memory
  // than its text. Without events a comment is written.
  void write_events() {
    quiet_.cancel();
    text_.clear();
    if (!std::exchange(begun_, true)) text_ = stream_head(head());
    if (held_.empty()) text_ += stream_part(head(), ": ping\n\n");
    for (serve::Event& event : std::exchange(held_, {})) {
      failed_ |= event.error.has_value();
      text_ +=
          stream_part(head(), event.error ? serve::Reply::stream_error(*event.error) : reply_->take(std::move(event)));
    }
    const bool is_last = failed_ || reply_->done();
    if (is_last) {
      forget_request();
      watching_ = false;
      keep_alive_ = !ends_with_connection(head());
      text_ += stream_part(head(), "");
    }
    writing_ = true;
    stream_.expires_after(kWriteTime);
    net::async_write(stream_, net::buffer(text_), then([this, is_last](error_code error) {
                       if (error || is_last) return finish(error);
                       stream_.expires_never();
                       writing_ = false;
                       held_.empty() ? ping_when_quiet() : write_events();
                     }));
  }

  void finish(error_code error) {
    if (error) return give_up();
    if (keep_alive_) return read();
    stream_.socket().shutdown(tcp::socket::shutdown_send, error);
    stream_.expires_after(kLingerTime);
    linger();
  }

  // A client that is still sending would lose the answer if the socket were closed now.
  void linger() {
    buffer_.clear();
    stream_.async_read_some(buffer_.prepare(4096), then([this](error_code error) {
                              if (error) return stream_.close();
                              linger();
                            }));
  }

  HttpContext& context_;
  beast::tcp_stream stream_;
  net::steady_timer quiet_{context_.io};  // since the stream's last part
  beast::flat_buffer buffer_{kLongestPiece};
  std::optional<http::request_parser<http::string_body>> parser_;
  Response response_;
  unsigned version_ = 11;
  bool keep_alive_ = false, idle_ = false;
  bool watching_ = false, gone_ = false;

  // Of a request that the engine works on, or its answer:
  serve::RequestId id_ = 0;  // 0: the engine knows of none
  std::optional<serve::Reply> reply_;
  std::vector<serve::Event> held_;                         // to be written
  std::string text_;                                       // that is being written
  bool begun_ = false, writing_ = false, failed_ = false;  // the stream
};

void start_connection(tcp::socket socket, HttpContext& context) {
  std::make_shared<Connection>(std::move(socket), context)->read();
}

void deliver(HttpContext& context, serve::RequestId id, serve::Event event) {
  const auto found = context.requests.find(id);
  if (found == context.requests.end()) return;
  const std::shared_ptr<Connection> connection = found->second;
  connection->take(std::move(event));
}

void close_idle_connections(HttpContext& context) {
  for (Connection* connection : context.connections) connection->close_if_idle();
}

}  // namespace a2sf::app
