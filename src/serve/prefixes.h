// Caches of what was read and said before, for requests that go on from there: a conversation's next turn, another
// conversation with the same system prompt.
//
// A cache that has evicted holds what its policy left of just so many tokens: it is good for what begins with all of
// them, and for no less. One that goes on from such a copy says the same bytes as one that reads everything anew, where
// it does not matter to the policy which tokens were a prompt.
#pragma once

#include <a2sf/session.h>
#include <a2sf/text.h>

#include <algorithm>
#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace a2sf::serve {

// Whose cache it is, and of what kind: none goes over to others.
struct PrefixKind {
  std::string owner;
  PolicySpec policy;
  KvType kv_type;
  bool is_viewed;  // its session records evictions
  bool operator==(const PrefixKind&) const = default;
};

// Not thread safe.
class Prefixes {
 public:
  explicit Prefixes(std::uint64_t most_bytes) : most_bytes_(most_bytes) {}

  std::uint64_t bytes() const { return bytes_; }  // of all that is kept

  // A session that has read the longest kept beginning of the prompt, at least its last token is left to read; nothing
  // where there is none. `room`: bytes that may be kept beside that session from now on. What is kept stays, unless
  // there is no room for both.
  std::optional<Session> resume(const PrefixKind& kind, std::span<const Token> prompt, std::uint64_t room);

  // Keeps the session, which has read these tokens, or a copy of it. What was used longest ago goes until all are
  // within `room`; one that is larger is not kept.
  void keep(PrefixKind kind, std::vector<Token> tokens, Session session, std::uint64_t room);
  void keep_copy(PrefixKind kind, std::vector<Token> tokens, const Session& session, std::uint64_t room);

  // Likewise, with nothing new.
  void shrink(std::uint64_t room);

 private:
  struct Kept {
    PrefixKind kind;
    std::vector<Token> tokens;
    Session session;
    std::uint64_t bytes;
  };
  using Place = std::list<Kept>::iterator;

  std::uint64_t limit(std::uint64_t room) const { return std::min(most_bytes_, room); }
  Place longest(const PrefixKind& kind, std::span<const Token> prompt);
  Session take(Place place);

  const std::uint64_t most_bytes_;
  std::uint64_t bytes_ = 0;
  std::list<Kept> kept_;  // what was used last is first
};

}  // namespace a2sf::serve
