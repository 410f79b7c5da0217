// What the benchmark programs share.
#pragma once

#include <a2sf/a2sf.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

namespace a2sf {

// The value, or the end of the program with the error's line.
template <class T>
T or_exit(Result<T> result) {
  if (!result) {
    fmt::print(stderr, "error: {}\n", result.error().message);
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

inline std::vector<Token> random_tokens(std::size_t count, int vocabulary, std::mt19937& random) {
  std::vector<Token> tokens(count);
  for (Token& token : tokens) token = static_cast<Token>(random() % static_cast<unsigned>(vocabulary));
  return tokens;
}

// Milliseconds per token, decoded one by one.
inline double decode(Session& session, const std::vector<Token>& tokens) {
  const auto begin = std::chrono::steady_clock::now();
  for (const Token& token : tokens) or_exit(session.feed({&token, 1}));
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
  return time.count() / static_cast<double>(tokens.size());
}

}  // namespace a2sf
