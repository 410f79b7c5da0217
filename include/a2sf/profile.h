// A profile: how the KV heads of one model share a budget, and how fast each of them forgets. Measured once per model,
// used with any budget.
//
// As a file it is a JSON object; keys that are not named here are ignored:
//   {"shares": [[1.5, 0.5], [0.8, 1.2]],     [layer][kv head], finite and above 0: only their proportions count
//    "alphas": [[0.99, 0.9], [0.995, 1]]}    [layer][kv head], 0 to 1; may be left out
#pragma once

#include <a2sf/policy.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace a2sf {

struct Profile {
  std::vector<std::vector<double>> shares;
  std::vector<std::vector<double>> alphas;  // forgetting factors; as many as shares, or none
  std::string file;                         // where it was read from, as given; empty: from elsewhere
};

// Fails unless both tables are as said above, naming the table, the layer and the KV head.
Status validate(const Profile& profile);
// A profile that is valid, or an error.
Result<Profile> parse_profile(std::string_view json);
Result<Profile> read_profile(const std::string& path);

// A valid profile's budget for each head, [layer][kv head]: whole tokens in the proportions of the shares, `mean` per
// head, so that all heads together have exactly mean * heads. Every head gets at least `least` (1 to mean), which the
// others pay for; the largest remainders are rounded up, of equal ones the earlier head's. Layers outside `bounded`
// (empty: all are inside) take no part: kKeepAll.
std::vector<std::vector<std::int64_t>> share_out(const Profile& profile, std::int64_t mean, std::int64_t least,
                                                 const std::vector<LayerRange>& bounded = {});

}  // namespace a2sf
