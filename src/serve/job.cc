#include "serve/job.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace a2sf::serve {

SessionOptions Job::session_options(std::size_t prompt_tokens) const {
  const auto most = static_cast<std::int64_t>(prompt_tokens + generate.tokens);
  return {.policy = policy, .kv_type = kv_type, .most_tokens = resumes ? 0 : most};
}

Result<std::uint64_t> Job::cost(const ModelInfo& model, std::size_t prompt_tokens) const {
  return cache_cost(model, session_options(prompt_tokens), static_cast<std::int64_t>(prompt_tokens + generate.tokens));
}

void add(std::vector<Event>& waiting, Event event) {
  const auto same = std::find_if(waiting.begin(), waiting.end(),
                                 [&](const Event& other) { return other.sequence == event.sequence; });
  if (same == waiting.end() || event.error) return waiting.push_back(std::move(event));
  same->text += event.text;
  std::move(event.tokens.begin(), event.tokens.end(), std::back_inserter(same->tokens));
  if (event.view && same->view) {
    add(*same->view, std::move(*event.view));
  } else if (event.view) {
    same->view = std::move(event.view);
  }
  same->end = event.end;
}

}  // namespace a2sf::serve
