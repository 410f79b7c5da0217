#include <algorithm>

#include "kernels/backend.h"

namespace a2sf {
namespace {

const char* name_of(RetentionMode mode) {
  switch (mode) {
    case RetentionMode::all:
      return "unbounded caches";
    case RetentionMode::score:
      return "policies that score";
    case RetentionMode::oracle:
      return "oracles";
    case RetentionMode::hook:
      break;
  }
  return "hooks";
}

}  // namespace

Status Capabilities::check(const Retention& retention, KvType kv_type) const {
  const auto has = [](const auto& all, auto one) { return std::find(all.begin(), all.end(), one) != all.end(); };
  const auto refuse = [&](const char* what) {
    return fail(ErrorKind::unsupported, "device '" + name + "' has no " + what);
  };
  if (!has(kv_types, kv_type)) return refuse(kv_type == KvType::f16 ? "caches of f16" : "caches of f32");
  if (retention.whole_prompt && !whole_prompt) return refuse("block = prompt");
  if (retention.cold.tokens > 0 && !cold_tier) return refuse("cold tier");
  for (const HeadRule& rule : retention.rules) {
    if (!has(modes, rule.mode)) return refuse(name_of(rule.mode));
    if (rule.power != 1 && !power) return refuse("power of scores");
    if (rule.value_weight && !value_weight) return refuse("value weights");
    if (rule.threshold > 0 && !threshold) return refuse("threshold of scores");
    if (rule.classes && !token_classes) return refuse("token classes");
  }
  return {};
}

}  // namespace a2sf
