#include "serve/prefixes.h"

#include <algorithm>
#include <utility>

namespace a2sf::serve {

Prefixes::Place Prefixes::longest(const PrefixKind& kind, std::span<const Token> prompt) {
  auto best = kept_.end();
  for (auto each = kept_.begin(); each != kept_.end(); ++each) {
    const auto& tokens = each->tokens;
    if (tokens.size() >= prompt.size() || (best != kept_.end() && tokens.size() <= best->tokens.size())) continue;
    if (each->kind == kind && std::equal(tokens.begin(), tokens.end(), prompt.begin())) best = each;
  }
  return best;
}

std::optional<Session> Prefixes::resume(const PrefixKind& kind, std::span<const Token> prompt, std::uint64_t room) {
  const Place found = longest(kind, prompt);
  if (found == kept_.end()) return std::nullopt;
  kept_.splice(kept_.begin(), kept_, found);
  if (found->bytes > room) return take(found);
  shrink(room);
  auto copy = found->session.fork();
  return copy ? std::optional(std::move(*copy)) : std::nullopt;
}

Session Prefixes::take(Place place) {
  Session session = std::move(place->session);
  bytes_ -= place->bytes;
  kept_.erase(place);
  return session;
}

void Prefixes::keep(PrefixKind kind, std::vector<Token> tokens, Session session, std::uint64_t room) {
  const std::uint64_t bytes = session.kv_bytes();
  if (bytes > limit(room)) return;
  const auto same = std::find_if(kept_.begin(), kept_.end(),
                                 [&](const Kept& each) { return each.kind == kind && each.tokens == tokens; });
  if (same != kept_.end()) take(same);
  shrink(limit(room) - bytes);
  kept_.push_front({std::move(kind), std::move(tokens), std::move(session), bytes});
  bytes_ += bytes;
}

// There is room for the copy before it is made.
void Prefixes::keep_copy(PrefixKind kind, std::vector<Token> tokens, const Session& session, std::uint64_t room) {
  const std::uint64_t bytes = session.kv_bytes();
  if (bytes > limit(room)) return;
  shrink(limit(room) - bytes);
  if (auto copy = session.fork()) keep(std::move(kind), std::move(tokens), std::move(*copy), room);
}

void Prefixes::shrink(std::uint64_t room) {
  while (bytes_ > limit(room)) take(std::prev(kept_.end()));
}

}  // namespace a2sf::serve
