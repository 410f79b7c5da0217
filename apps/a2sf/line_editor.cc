#include "line_editor.h"

#include "outcome.h"
#include "progress.h"

#include <histedit.h>
#include <langinfo.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <string_view>
#include <utility>

namespace a2sf::app {
namespace {

constexpr int kHistory = 1000;  // messages

// Between the two, a terminal encloses what is pasted in ESC [200~ and ESC [201~. Only while a line is read: a program
// that ends in any other place leaves nothing behind.
class BracketedPaste {
 public:
  BracketedPaste() { tell("\x1b[?2004h"); }
  ~BracketedPaste() { tell("\x1b[?2004l"); }
  BracketedPaste(const BracketedPaste&) = delete;
  BracketedPaste& operator=(const BracketedPaste&) = delete;

 private:
  static void tell(const char* sequence) {
    const char* const terminal = std::getenv("TERM");
    if (terminal != nullptr && std::string_view(terminal) != "dumb") std::fputs(sequence, stderr);
  }
};

// libedit takes the encoding of the locale; where that is none for all characters, UTF-8 is the better guess.
void choose_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::string_view(::nl_langinfo(CODESET)) != "UTF-8") std::setlocale(LC_CTYPE, "C.UTF-8");
}

// Terminals send CR for the line breaks of a paste.
std::wstring with_line_feeds(std::wstring_view text) {
  std::wstring result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != L'\r') {
      result += text[i];
    } else if (i + 1 == text.size() || text[i + 1] != L'\n') {
      result += L'\n';
    }
  }
  return result;
}

}  // namespace

struct LineEditor::State {
  const char* prompt;
  EditLine* editor = nullptr;
  History* history = nullptr;
  std::string bytes = {};  // read, from `at` on not yet asked for
  std::size_t at = 0;
  bool leaving = false;   // interrupted, or the terminal is gone
  bool cut_text = false;  // then: the line has text

  ~State() {
    if (editor != nullptr) el_end(editor);
    if (history != nullptr) history_end(history);
  }

  static State& of(EditLine* editor) {
    void* state = nullptr;
    el_get(editor, EL_CLIENTDATA, &state);
    return *static_cast<State*>(state);
  }

  static const char* show_prompt(EditLine* editor) { return of(editor).prompt; }

  // The next byte; EOF at the terminal's end or if interrupted.
  int next_byte() {
    if (at == bytes.size()) {
      char buffer[4096];
      if (!wait_for_input(STDIN_FILENO)) return EOF;
      const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof buffer);
      if (count <= 0) return EOF;
      bytes.assign(buffer, static_cast<std::size_t>(count));
      at = 0;
    }
    return static_cast<unsigned char>(bytes[at++]);
  }

  // What libedit reads with. Its own function would wait on after Ctrl-C.
  static int read_character(EditLine* editor, wchar_t* character) {
    std::mbstate_t state = {};
    for (int byte; (byte = of(editor).next_byte()) != EOF;) {
      const char as_char = static_cast<char>(byte);
      const std::size_t length = std::mbrtowc(character, &as_char, 1, &state);
      if (length <= 1) return 1;
      if (length == static_cast<std::size_t>(-1)) state = {};  // no UTF-8: left out
    }
    const LineInfoW* const line = el_wline(editor);
    of(editor).cut_text = line->lastchar > line->buffer;
    if (std::exchange(of(editor).leaving, true)) return -1;
    *character = L'\x03';
    return 1;
  }

  // What the key Ctrl-C does, which is sent when a line is left: what is printed next comes behind the text.
  static unsigned char go_to_end(EditLine* editor, int) {
    const LineInfoW* const line = el_wline(editor);
    el_cursor(editor, static_cast<int>(line->lastchar - line->cursor));
    return CC_CURSOR;
  }

  // What the key "ESC [200~" does.
  static unsigned char insert_paste(EditLine* editor, int) {
    constexpr std::wstring_view kEnd = L"\x1b[201~";
    std::wstring text;
    for (wchar_t character; !text.ends_with(kEnd) && el_wgetc(editor, &character) == 1;) {
      if (character != L'\0') text += character;
    }
    if (text.ends_with(kEnd)) text.resize(text.size() - kEnd.size());
    el_winsertstr(editor, with_line_feeds(text).c_str());
    return CC_REFRESH;
  }
};

LineEditor::LineEditor(const char* prompt) : state_(new State{.prompt = prompt}) {
  choose_utf8();
  State& state = *state_;
  state.editor = el_init("a2sf", stdin, stderr, stderr);
  state.history = history_init();
  if (state.editor == nullptr || state.history == nullptr) fail_with(kFailed, "cannot set up the line editor");
  HistEvent event;
  history(state.history, &event, H_SETSIZE, kHistory);
  history(state.history, &event, H_SETUNIQUE, 1);
  el_set(state.editor, EL_CLIENTDATA, &state);
  el_set(state.editor, EL_EDITOR, "emacs");
  el_set(state.editor, EL_PROMPT, &State::show_prompt);
  el_set(state.editor, EL_HIST, history, state.history);
  el_set(state.editor, EL_GETCFN, &State::read_character);
  el_set(state.editor, EL_ADDFN, "a2sf-paste", "Insert pasted text", &State::insert_paste);
  el_set(state.editor, EL_BIND, "\\e[200~", "a2sf-paste", nullptr);
  el_set(state.editor, EL_ADDFN, "a2sf-leave", "Go to the end of the text", &State::go_to_end);
  el_set(state.editor, EL_BIND, "^C", "a2sf-leave", nullptr);
}

LineEditor::~LineEditor() = default;

std::optional<std::string> LineEditor::next() {
  State& state = *state_;
  while (true) {
    int count = 0;
    state.leaving = state.cut_text = false;
    el_resize(state.editor);
    el_set(state.editor, EL_PREP_TERM, 1);  // first: else the terminal would cut a long paste
    const char* const typed = [&] {
      const BracketedPaste paste;
      return el_gets(state.editor, &count);
    }();
    if (interrupted()) {
      std::fputs("^C\n", stderr);
      if ((!state.cut_text && count <= 1) || !forgive_ctrl_c()) return std::nullopt;
      continue;
    }
    std::string line = typed != nullptr && count > 0 ? typed : "";
    if (!line.ends_with('\n')) {  // Ctrl-D, or the terminal is gone
      std::fputs("\n", stderr);
      return std::nullopt;
    }
    while (line.ends_with('\n')) line.pop_back();  // a paste may end in more
    HistEvent event;
    if (!line.empty()) history(state.history, &event, H_ENTER, line.c_str());
    return line;
  }
}

}  // namespace a2sf::app
