// What a person says in a chat, message by message: typed at a terminal, or the lines of a pipe or file.
#pragma once

#include "line_editor.h"

#include <optional>
#include <string>

namespace a2sf::app {

class MessageSource {
 public:
  // With an editor where stdin and stderr are terminals.
  MessageSource();

  // The next one that is not empty, in valid UTF-8 and without NUL bytes; others get a warning and are left out.
  // Nothing at the end of input or if interrupted().
  std::optional<std::string> next();

  bool are_typed() const { return editor_.has_value(); }

 private:
  std::optional<std::string> next_line();
  bool read_more();

  std::optional<LineEditor> editor_;
  std::string text_;          // read, but not yet asked for
  std::size_t searched_ = 0;  // of it, for a line break
};

}  // namespace a2sf::app
