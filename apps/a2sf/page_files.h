// The files of the page, as they are in apps/a2sf/page.
#pragma once

#include <span>
#include <string_view>

namespace a2sf::app {

struct PageFile {
  std::string_view path;  // "/" or "/page/NAME"
  std::string_view type;  // of its content
  std::string_view text;
};

std::span<const PageFile> page_files();

}  // namespace a2sf::app
