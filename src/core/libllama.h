// libllama made silent: it logs to stderr unless told otherwise, and says why it failed nowhere else.
#pragma once

#include <string>

namespace a2sf {

// Initialises libllama and takes over its log; once per process, from any thread.
void initialise_libllama();

// The first error that libllama logs on this thread while the object lives. Do not nest.
class ErrorCapture {
 public:
  ErrorCapture();
  ~ErrorCapture();
  ErrorCapture(const ErrorCapture&) = delete;
  ErrorCapture& operator=(const ErrorCapture&) = delete;

  // Without the function names that libllama puts in front; `otherwise` if nothing was logged.
  std::string reason(const std::string& otherwise) const;

 private:
  std::string first_error_;
};

}  // namespace a2sf
