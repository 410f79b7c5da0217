#include "message_source.h"

#include "options.h"
#include "outcome.h"
#include "progress.h"

#include <a2sf/text.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace a2sf::app {
namespace {

bool is_blank(const std::string& text) { return text.find_first_not_of(" \t\n\v\f\r") == std::string::npos; }

// Why a message cannot be used; empty if it can.
std::string fault_of(const std::string& message) {
  if (const auto wrong = find_invalid_utf8(message)) {
    return fmt::format("is not valid UTF-8: the first wrong byte is at offset {}", *wrong);
  }
  return message.find('\0') == std::string::npos ? "" : "contains a NUL byte";
}

}  // namespace

MessageSource::MessageSource() {
  if (::isatty(STDIN_FILENO) == 1 && ::isatty(STDERR_FILENO) == 1) editor_.emplace("> ");
}

std::optional<std::string> MessageSource::next() {
  while (auto message = editor_ ? editor_->next() : next_line()) {
    if (is_blank(*message)) continue;
    const std::string fault = fault_of(*message);
    if (fault.empty()) return message;
    warn(fmt::format("this message is left out: it {}", fault));
  }
  return std::nullopt;
}

std::optional<std::string> MessageSource::next_line() {
  std::size_t end = text_.find('\n');
  while (end == std::string::npos && read_more()) end = text_.find('\n', searched_);
  if (interrupted() || text_.empty()) return std::nullopt;
  std::string line = text_.substr(0, end);
  text_.erase(0, end == std::string::npos ? end : end + 1);
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

bool MessageSource::read_more() {
  char buffer[4096];
  if (!wait_for_input(STDIN_FILENO)) return false;
  const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof buffer);
  if (count < 0) fail_with(kFailed, fmt::format("cannot read standard input: {}", std::strerror(errno)));
  searched_ = text_.size();
  text_.append(buffer, static_cast<std::size_t>(count));
  return count > 0;
}

}  // namespace a2sf::app
