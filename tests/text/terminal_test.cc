#include "text/terminal.h"

#include <gtest/gtest.h>

namespace a2sf::text {
namespace {

TEST(EscapeControls, NothingThatATerminalObeysIsLeft) {
  EXPECT_EQ(escape_controls("\x1b[31mred\x1b]0;title\x07 \x7f\r", Layout::keep),
            "\\x1b[31mred\\x1b]0;title\\x07 \\x7f\\x0d");
  EXPECT_EQ(escape_controls("\xc2\x9b"
                            "2J",
                            Layout::keep),
            "\\x9b2J");
}

TEST(EscapeControls, LayoutStaysOrBecomesBlanks) {
  EXPECT_EQ(escape_controls("a\n\tb", Layout::keep), "a\n\tb");
  EXPECT_EQ(escape_controls("a\n\tb", Layout::one_line), "a  b");
}

TEST(EscapeControls, OtherTextStaysAsItIs) {
  const std::string_view text = "Käse \xe4\xb8\xad \xc2\xa0 \xf0\x9f\x99\x82 \xff";
  EXPECT_EQ(escape_controls(text, Layout::one_line), text);
}

}  // namespace
}  // namespace a2sf::text
