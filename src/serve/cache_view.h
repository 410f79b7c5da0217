// What a sequence's cache holds, told while it changes, for clients that show what is remembered.
#pragma once

#include <a2sf/session.h>
#include <a2sf/text.h>

#include <cstdint>
#include <vector>

#include "serve/fields.h"

namespace a2sf::serve {

// Since the last one. A token is held by every KV head when it has been read, until it is told that it left. A place is
// a KV head: layer * KV heads + KV head.
struct CacheView {
  std::vector<Token> tokens = {};                    // that were read
  std::vector<std::vector<std::int32_t>> held = {};  // [place]: positions, ascending; none: not told
  std::int64_t held_tokens = 0;                      // that had been read when it was
  std::vector<std::int32_t> gone = {};               // place, position, place, position: what left, after `held`
  bool is_lossy = false;                             // there were too many: whoever looks on knows no more
  std::uint64_t bytes = 0;                           // of the cache now
};

// What has left since the last one, of a session that records evictions; `whole`: what is held instead.
CacheView take_view(Session& session, const ModelInfo& model, bool whole);

// Makes it one with the view after it, for a client that takes its time: `held` mends what was left out before.
void add(CacheView& waiting, CacheView next);

// {"tokens": [text, or bytes of a part of a character], "bytes", "held": {"tokens", "places": [bits]}, "gone": [place,
// position, ...], "lossy"}. Bits are hexadecimal: position p is bit p % 8 of byte p / 8.
Json view_json(const CacheView& view, const Tokenizer& tokenizer);

}  // namespace a2sf::serve
