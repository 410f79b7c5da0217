// FNV-1a, 64 bits: tells contents apart at once, and is no proof against forgery.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace a2sf {

inline constexpr std::uint64_t kFnvOfNothing = 0xcbf29ce484222325ULL;

// The hash of what `hash` was of, followed by `bytes`.
inline std::uint64_t fnv1a(std::span<const std::byte> bytes, std::uint64_t hash = kFnvOfNothing) {
  for (const std::byte byte : bytes) hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3ULL;
  return hash;
}

}  // namespace a2sf
