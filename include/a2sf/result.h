// Errors are values: every operation that can fail returns Result<T>.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace a2sf {

enum class ErrorKind {
  bad_input,      // a file, an option or a token the caller gave cannot be used
  unsupported,    // well-formed, but not something this build can compute
  io,             // the operating system refused to open, read, map or write
  out_of_memory,  // the message says how much was needed
  cancelled,      // the caller's cancel callback asked to stop
};

// One line for a person: it names the file or value and, where known, what would work.
struct Error {
  ErrorKind kind;
  std::string message;
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// `return fail(ErrorKind::bad_input, "...")` from any function that returns a Result.
inline tl::unexpected<Error> fail(ErrorKind kind, std::string message) {
  return tl::unexpected<Error>(Error{kind, std::move(message)});
}

}  // namespace a2sf
