// Spans of a step on a host.
#pragma once

#include "kernels/backend.h"
#include "kernels/host/host_store.h"
#include "policy/recall.h"

namespace a2sf {

inline HostStore& host_store(const Span& span) { return *static_cast<HostStore*>(span.store); }

// Whether these rows evict nothing, but for the last of a prompt.
inline bool in_prompt(const Span& span) { return span.in_prompt && span.store->retention().whole_prompt; }

// Whether cold tokens of the layer may come back before this row attends.
inline bool recalls_before(const Span& span, int layer, int row) {
  if (!host_store(span).has_cold_tier(layer)) return false;
  if (span.prompt_ends && row == span.rows - 1) return true;
  return !in_prompt(span) && (span.first_position + row) % recall_every(span.store->retention().block) == 0;
}

}  // namespace a2sf
