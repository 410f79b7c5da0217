// How a command ends early: an exception that main turns into one line and an exit code.
#pragma once

#include "progress.h"

#include <a2sf/result.h>

#include <string>
#include <type_traits>
#include <utility>

namespace a2sf::app {

enum ExitCode { kDone = 0, kFailed = 1, kWrongUsage = 2 };  // or interruption_code()

struct Failure {
  int code;
  std::string message;  // empty: nothing is printed
};

[[noreturn]] inline void fail_with(int code, std::string message) { throw Failure{code, std::move(message)}; }

[[noreturn]] inline void raise(Error error, int code) {
  if (error.kind == ErrorKind::cancelled) fail_with(interruption_code(), "");
  fail_with(error.kind == ErrorKind::io ? static_cast<int>(kFailed) : code, std::move(error.message));
}

// The value, or the end of the command.
template <class T>
T need(Result<T> result, int code = kFailed) {
  if (!result) raise(std::move(result.error()), code);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace a2sf::app
