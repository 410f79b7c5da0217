// How large a token's value is.
#pragma once

#include <a2sf/hook.h>

#include <cmath>
#include <vector>

namespace a2sf {

// The L1 norm of the token's value, which is read once: a value never changes, so its norm is the slot's number
// `index`. `value`: the caller's memory, kept from call to call.
inline float value_norm(HookHead& head, int slot, int index, std::vector<float>& value) {
  if (head.number(slot, index) > 0) return head.number(slot, index);
  value.resize(static_cast<std::size_t>(head.head_dim()));
  head.read_value(slot, value);
  float norm = 0;
  for (const float x : value) norm += std::abs(x);
  head.set_number(slot, index, norm);
  return norm;
}

}  // namespace a2sf
