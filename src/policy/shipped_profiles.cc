#include "policy/shipped_profiles.h"

#include <algorithm>
#include <vector>

namespace a2sf {
namespace {

// One that cannot be read is left out; a test reads them all.
const std::vector<Profile>& shipped_profiles() {
  static const std::vector<Profile> profiles = [] {
    std::vector<Profile> all;
    for (const ShippedText& text : kShippedTexts) {
      auto profile = parse_profile(text.json);
      if (!profile) continue;
      profile->file = text.name;
      all.push_back(std::move(*profile));
    }
    return all;
  }();
  return profiles;
}

}  // namespace

const Profile* find_shipped_profile(std::string_view name) {
  const auto& all = shipped_profiles();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Profile& each) { return each.file == name; });
  return found == all.end() ? nullptr : &*found;
}

std::shared_ptr<const Profile> shipped_profile(std::string_view model_hash) {
  const auto& all = shipped_profiles();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Profile& each) {
    return !each.model_hash.empty() && each.model_hash == model_hash;
  });
  return found == all.end() ? nullptr : std::make_shared<const Profile>(*found);
}

}  // namespace a2sf
