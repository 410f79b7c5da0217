// What every device on the host can do: all that there is.
#pragma once

#include <string>
#include <utility>

#include "kernels/backend.h"

namespace a2sf {

inline Capabilities host_capabilities(std::string name) {
  return {.name = std::move(name),
          .kv_types = {KvType::f16, KvType::f32},
          .modes = {RetentionMode::all, RetentionMode::score, RetentionMode::oracle, RetentionMode::hook},
          .whole_prompt = true,
          .power = true,
          .value_weight = true,
          .token_classes = true,
          .threshold = true,
          .cold_tier = true,
          .most_rows = 4096,
          .exact_bytes = true};
}

}  // namespace a2sf
