// A message typed at a terminal: arrows, history, UTF-8; a paste is one message of whatever length and number of lines.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace a2sf::app {

class LineEditor {
 public:
  // Reads from stdin and shows the prompt and what is typed on stderr; both must be terminals.
  explicit LineEditor(const char* prompt);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  // Without the line break at its end, in UTF-8. Nothing at Ctrl-D, at the terminal's end and if interrupted(): Ctrl-C
  // on a line with text only clears it.
  std::optional<std::string> next();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace a2sf::app
