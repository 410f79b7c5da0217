// A profile: how the KV heads of one model share a budget, and how fast each of them forgets. Measured once per model
// (a2sf tune), used with any budget.
//
// As a file it is a JSON object; keys that are not named here are ignored:
//   {"tables": [{"mean": 256,                      the budget per head that the table was made for
//                "shares": [[1.5, 0.5], ...],      [layer][kv head], finite and above 0: only their proportions count
//                "alphas": [[0.99, 0.9], ...]},    [layer][kv head], 0 to 1; may be left out
//               ...],                              by ascending mean; instead of alphas there may be
//                "memories": [[1.5, 3], ...]       [layer][kv head], finite and above 0: AutoAlpha::memory
//                "local": [[0, 1], ...]            [layer][kv head], 1: the head is local; may be left out
//    "policy": "a2sf:power=1.5",                   the policy that it was made for: its score, its keep rule and which
//                                                  layers are bounded; left out: the plain one
//    "model": "...", "model_hash": "...",          ModelInfo::name and hash of the model that it was measured on
//    "texts": [{"name": "...", "hash": "..."}]}    what it was measured on: text_hash() of each text
// All but the tables may be left out. {"shares": ...} is a profile of one table, for any budget.
#pragma once

#include <a2sf/policy.h>
#include <a2sf/tuned_text.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace a2sf {

// How the heads share a budget of about one size: what a head needs depends on how much there is.
struct ShareTable {
  std::int64_t mean = 0;  // the budget per head that it was made for; 0: any
  std::vector<std::vector<double>> shares;
  // Forgetting factors, or memories in budgets (AutoAlpha): as many as shares, or none. Not both.
  std::vector<std::vector<double>> alphas = {}, memories = {};
  // 1 where a head is local: whatever its scores, all of its budget is for the first 4 tokens and the newest
  // (StreamingLLM, arXiv 2309.17453). 0 elsewhere; none: no head is.
  std::vector<std::vector<double>> local = {};
};

struct Profile {
  std::vector<ShareTable> tables;  // at least one, all of one shape, by ascending mean
  std::string policy = {};         // the policy that it was made for, as text: share_by(); empty: any
  std::string model = {}, model_hash = {};
  std::vector<TunedText> texts = {};
  std::string file = {};  // where it was read from, as given; empty: from elsewhere

  // The one whose mean is nearest, by their ratio; of equally near ones the smaller.
  const ShareTable& table_for(std::int64_t mean) const;
  // Whether it was tuned on the text of this hash: what it does there says nothing about other texts.
  bool was_tuned_on(std::string_view text_hash) const;
};

// Fails unless the tables are as said above, naming the table, the layer and the KV head.
Status validate(const Profile& profile);
// A profile that is valid, or an error.
Result<Profile> parse_profile(std::string_view json);
// A file, or the name of a shipped profile where there is no such file.
Result<Profile> read_profile(const std::string& path);
// The text of a profile's file.
std::string to_json(const Profile& profile);

// The profile of the model with this hash (ModelInfo::hash) that comes with the library, for texts of a domain or,
// without one, for any; nullptr: there is none.
std::shared_ptr<const Profile> shipped_profile(std::string_view model_hash, std::string_view domain = {});
// The domains that a model has shipped profiles for ("code"), in alphabetical order.
std::vector<std::string> shipped_domains();

// The budget for each head by a valid profile's table for `mean`, [layer][kv head]: whole tokens in the proportions of
// the shares, `mean` per head, so that all heads together have exactly mean * heads. Every head gets at least `least`
// (1 to mean), which the others pay for; the largest remainders are rounded up, of equal ones the earlier head's.
// Layers outside `bounded` (empty: all are inside) take no part: kKeepAll.
std::vector<std::vector<std::int64_t>> share_out(const Profile& profile, std::int64_t mean, std::int64_t least,
                                                 const std::vector<LayerRange>& bounded = {});

}  // namespace a2sf
