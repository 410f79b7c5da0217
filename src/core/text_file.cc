#include "core/text_file.h"

#include <fmt/format.h>

#include <fstream>
#include <vector>

namespace a2sf {

Result<std::string> read_text_file(const std::string& path, const char* what, std::size_t most) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  std::vector<char> buffer(1 << 16);
  while (file && text.size() <= most) {
    file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    text.append(buffer.data(), static_cast<std::size_t>(file.gcount()));
  }
  if (text.size() > most) {
    return fail(ErrorKind::bad_input, fmt::format("'{}' is no {}: it has more than {} MiB", path, what, most >> 20));
  }
  if (!file.is_open() || file.bad()) return fail(ErrorKind::io, fmt::format("cannot read the {} '{}'", what, path));
  return text;
}

}  // namespace a2sf
