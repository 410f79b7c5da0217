#include "serve/cache_view.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>

#include "serve/logprobs.h"

namespace a2sf::serve {
namespace {

constexpr std::size_t kMostGone = std::size_t{1} << 17;  // numbers that wait for a client

std::string bits_of(const std::vector<std::int32_t>& positions) {
  std::vector<unsigned> bytes(positions.empty() ? 0 : static_cast<std::size_t>(positions.back()) / 8 + 1);
  for (const std::int32_t position : positions) bytes[static_cast<std::size_t>(position) / 8] |= 1U << (position % 8);
  std::string text;
  for (const unsigned byte : bytes) fmt::format_to(std::back_inserter(text), "{:02x}", byte);
  return text;
}

}  // namespace

CacheView take_view(Session& session, const ModelInfo& model, bool whole) {
  CacheView view{.bytes = session.kv_bytes()};
  for (std::int32_t place = 0; place < model.layers * model.kv_heads; ++place) {
    const int layer = place / model.kv_heads, head = place % model.kv_heads;
    for (const Eviction& eviction : session.evictions(layer, head)) {
      if (!whole) view.gone.insert(view.gone.end(), {place, eviction.position});
    }
    if (whole) view.held.push_back(session.retained(layer, head));
  }
  if (whole) view.held_tokens = session.position();
  return view;
}

void add(CacheView& waiting, CacheView next) {
  waiting.tokens.insert(waiting.tokens.end(), next.tokens.begin(), next.tokens.end());
  waiting.bytes = next.bytes;
  if (!next.held.empty()) {
    waiting.held = std::move(next.held);
    waiting.held_tokens = next.held_tokens;
    waiting.gone.clear();
    waiting.is_lossy = false;
  }
  waiting.gone.insert(waiting.gone.end(), next.gone.begin(), next.gone.end());
  waiting.is_lossy |= next.is_lossy || waiting.gone.size() > kMostGone;
  if (waiting.is_lossy) waiting.gone.clear();
}

Json view_json(const CacheView& view, const Tokenizer& tokenizer) {
  Json json = {{"tokens", Json::array()}, {"bytes", view.bytes}};
  for (const Token token : view.tokens) {
    const std::string piece = tokenizer.piece(token, true);
    json["tokens"].push_back(find_invalid_utf8(piece) ? bytes_of(piece) : Json(piece));
  }
  if (!view.held.empty()) {
    json["held"] = {{"tokens", view.held_tokens}, {"places", Json::array()}};
    for (const auto& positions : view.held) json["held"]["places"].push_back(bits_of(positions));
  }
  if (!view.gone.empty()) json["gone"] = view.gone;
  if (view.is_lossy) json["lossy"] = true;
  return json;
}

}  // namespace a2sf::serve
