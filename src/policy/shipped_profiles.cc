#include "policy/shipped_profiles.h"

#include <algorithm>
#include <set>
#include <string>
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

// A profile for a domain is named DOMAIN/MODEL.
std::string_view domain_of(const Profile& shipped) {
  const std::string_view name = shipped.file;
  const std::size_t slash = name.find('/');
  return slash == std::string_view::npos ? std::string_view() : name.substr(0, slash);
}

}  // namespace

const Profile* find_shipped_profile(std::string_view name) {
  const auto& all = shipped_profiles();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Profile& each) { return each.file == name; });
  return found == all.end() ? nullptr : &*found;
}

std::shared_ptr<const Profile> shipped_profile(std::string_view model_hash, std::string_view domain) {
  const auto& all = shipped_profiles();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Profile& each) {
    return !each.model_hash.empty() && each.model_hash == model_hash && domain_of(each) == domain;
  });
  return found == all.end() ? nullptr : std::make_shared<const Profile>(*found);
}

std::vector<std::string> shipped_domains() {
  std::set<std::string> domains;
  for (const Profile& profile : shipped_profiles()) domains.emplace(domain_of(profile));
  domains.erase("");
  return {domains.begin(), domains.end()};
}

}  // namespace a2sf
