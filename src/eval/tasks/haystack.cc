#include "eval/tasks/haystack.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "eval/tasks/filler.h"

namespace a2sf {
namespace {

constexpr std::string_view kOneKey =
    "Somewhere in this text there is a secret pass key. Remember it, for it is asked for at the end.";
constexpr std::string_view kManyKeys =
    "Somewhere in this text there are secret pass keys. Remember them, for one of them is asked for at the end.";

// A place in a text: 2^32 is its end.
using Depth = std::uint32_t;

struct Fact {
  std::string name, key;
  Depth depth;

  std::string sentence() const {
    return name.empty() ? fmt::format("The secret pass key is {}. Remember it.", key)
                        : fmt::format("The pass key of {} is {}.", name, key);
  }
  std::string question() const {
    return name.empty() ? "What is the pass key? The pass key is"
                        : fmt::format("What is the pass key of {0}? The pass key of {0} is", name);
  }
};

// Additive recurrence with the golden ratio: no two of the first n depths are close, whatever n is (Knuth, The Art of
// Computer Programming 3, section 6.4).
Depth depth_of(std::size_t item) { return static_cast<Depth>((item + 1) * 0x9e3779b97f4a7c15U >> 32); }

// Draws until it is none of the others.
template <class Draw>
std::string another(std::span<const Fact> facts, std::string Fact::*part, const Draw& draw) {
  for (;;) {
    std::string drawn = draw();
    if (std::none_of(facts.begin(), facts.end(), [&](const Fact& fact) { return fact.*part == drawn; })) return drawn;
  }
}

// Hidden facts, the first at a depth of 0 to 1 / count and each 1 / count below the one before.
struct Facts {
  std::vector<Fact> all;
  std::size_t asked;

  Facts(std::size_t count, Depth asked_depth, RandomBits& random) {
    const std::uint64_t scaled = std::uint64_t{asked_depth} * count;
    asked = scaled >> 32;
    for (std::uint64_t i = 0; i < count; ++i) {
      std::string name = count == 1 ? "" : another(all, &Fact::name, [&] { return std::string(filler_name(random)); });
      std::string key = another(all, &Fact::key, [&] { return std::to_string(10000 + random.below(90000)); });
      all.push_back({std::move(name), std::move(key), static_cast<Depth>(((i << 32) + (scaled & 0xffffffff)) / count)});
    }
  }

  std::string prompt(std::span<const std::string> filler) const {
    std::string text(all.size() == 1 ? kOneKey : kManyKeys);
    auto next = all.begin();
    for (std::size_t i = 0; i <= filler.size(); ++i) {
      for (; next != all.end() && next->depth * (filler.size() + 1) >> 32 == i; ++next) text += " " + next->sentence();
      if (i < filler.size()) text += " " + filler[i];
    }
    return text + " " + all[asked].question();
  }
};

// By bisection: more filler is never fewer tokens.
Result<std::string> longest_prompt(const Facts& facts, std::span<const std::string> filler, std::size_t most_tokens,
                                   const TokenCounter& count) {
  std::size_t fits = 0, too_much = filler.size() + 1;
  while (too_much - fits > 1) {
    const std::size_t middle = (fits + too_much) / 2;
    const auto tokens = count(facts.prompt(filler.first(middle)));
    if (!tokens) return tl::unexpected(tokens.error());
    (*tokens <= most_tokens ? fits : too_much) = middle;
  }
  return facts.prompt(filler.first(fits));
}

}  // namespace

Result<std::vector<AnswerItem>> make_haystacks(const AnswerTaskInfo& task, std::size_t limit,
                                               const TokenCounter& count) {
  const std::size_t most_tokens = task.haystack.tokens - task.most_tokens;
  std::vector<AnswerItem> items;
  for (std::size_t item = 0; item < (limit == 0 ? kHaystackItems : std::min(limit, kHaystackItems)); ++item) {
    RandomBits random(item);
    const Facts facts(task.haystack.facts, depth_of(item), random);
    std::vector<std::string> filler(most_tokens / kFewestFillerWords);  // a word is at least a token
    for (std::string& sentence : filler) sentence = filler_sentence(random);
    auto prompt = longest_prompt(facts, filler, most_tokens, count);
    if (!prompt) return tl::unexpected(prompt.error());
    items.push_back({item, std::move(*prompt), {facts.all[facts.asked].key}, {}});
  }
  return items;
}

}  // namespace a2sf
