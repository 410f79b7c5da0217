#include <a2sf/text.h>

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace a2sf {
namespace {

// The stop string that is complete first, and of several that end together the one that starts first. Choosing by the
// end, not by the start, makes the result independent of how the text was cut into pieces.
std::optional<std::size_t> start_of_stop(std::string_view text, const std::vector<std::string>& stop_strings) {
  std::optional<std::size_t> start;
  std::size_t end = 0;
  for (const std::string& stop : stop_strings) {
    const std::size_t found = text.find(stop);
    if (found == std::string_view::npos) continue;
    const std::size_t found_end = found + stop.size();
    if (!start || found_end < end || (found_end == end && found < *start)) {
      start = found;
      end = found_end;
    }
  }
  return start;
}

// Where the longest end of `text` begins that could grow into `stop`.
std::size_t start_of_partial(std::string_view text, std::string_view stop) {
  for (std::size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.ends_with(stop.substr(0, length))) return text.size() - length;
  }
  return text.size();
}

}  // namespace

TextStream::TextStream(std::vector<std::string> stop_strings) : stop_strings_(std::move(stop_strings)) {
  // An empty stop string would be found before the first character.
  std::erase_if(stop_strings_, [](const std::string& stop) { return stop.empty(); });
}

std::string TextStream::push(std::string_view piece) {
  if (stopped_) return {};
  held_.append(piece);
  if (const auto stop = start_of_stop(held_, stop_strings_)) {
    stopped_ = true;
    const std::string before = std::exchange(held_, {}).substr(0, *stop);
    return text::replace_invalid(before);
  }
  std::size_t safe = held_.size();
  for (const std::string& stop : stop_strings_) safe = std::min(safe, start_of_partial(held_, stop));
  safe -= text::incomplete_tail_length(std::string_view(held_).substr(0, safe));
  std::string shown = text::replace_invalid(std::string_view(held_).substr(0, safe));
  held_.erase(0, safe);
  return shown;
}

std::string TextStream::flush() { return text::replace_invalid(std::exchange(held_, {})); }

void TextStream::drop_partial_character() { held_.resize(held_.size() - text::incomplete_tail_length(held_)); }

}  // namespace a2sf
