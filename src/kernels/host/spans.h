// Spans of a step on a host.
#pragma once

#include "kernels/backend.h"
#include "kernels/host/host_store.h"

namespace a2sf {

inline HostStore& host_store(const Span& span) { return *static_cast<HostStore*>(span.store); }

// Whether these rows evict nothing, but for the last of a prompt.
inline bool in_prompt(const Span& span) { return span.in_prompt && span.store->retention().whole_prompt; }

}  // namespace a2sf
