// Room in a vector.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace a2sf {

// Room for `wanted` entries, at least doubled where there is less: reserve() of a little more each time would copy
// everything each time. May throw std::bad_alloc.
template <class T>
void reserve_amortised(std::vector<T>& entries, std::size_t wanted) {
  if (entries.capacity() < wanted) entries.reserve(std::max(wanted, 2 * entries.capacity()));
}

}  // namespace a2sf
