// The profiles that come with the library: the files of profiles/ and of its folders, one for each domain, compiled in.
#pragma once

#include <a2sf/profile.h>

#include <span>
#include <string_view>

namespace a2sf {

struct ShippedText {
  std::string_view name, json;  // of profiles/NAME.json, where NAME may be DOMAIN/MODEL
};
// Made by src/CMakeLists.txt.
extern const std::span<const ShippedText> kShippedTexts;

// By its name, which is its Profile::file; nullptr: there is none. Thread safe.
const Profile* find_shipped_profile(std::string_view name);

}  // namespace a2sf
