#include "kernels/logits.h"

#include <algorithm>
#include <cmath>

namespace a2sf {
namespace {

// Whether a row goes to each place in turn, without a gap.
bool takes_all(std::span<const LogitsQuery> wanted, int vocabulary) {
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const float* first = wanted.front().logits;
    if (first == nullptr || wanted[i].logits != first + i * static_cast<std::size_t>(vocabulary)) return false;
  }
  return true;
}

bool is_better(const TokenProbability& a, const TokenProbability& b) {
  return a.log_probability != b.log_probability ? a.log_probability > b.log_probability : a.token < b.token;
}

// A heap of the best so far, the worst of them in front.
void find_largest(std::span<const float> logits, std::span<TokenProbability> largest) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const TokenProbability next{static_cast<std::int32_t>(i), static_cast<double>(logits[i])};
    if (count == largest.size()) {
      if (!is_better(next, largest.front())) continue;
      std::pop_heap(largest.begin(), largest.end(), is_better);
      largest.back() = next;
    } else {
      largest[count++] = next;
    }
    std::push_heap(largest.begin(), largest.begin() + static_cast<std::ptrdiff_t>(count), is_better);
  }
  std::sort_heap(largest.begin(), largest.begin() + static_cast<std::ptrdiff_t>(count), is_better);
}

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

void answer(const LogitsQuery& query, std::span<const float> logits, LogSumExp log_sum_of) {
  if (query.tokens.empty() && query.largest.empty()) return;
  const double log_sum = log_sum_of(logits);
  for (std::size_t i = 0; i < query.tokens.size(); ++i)
    query.log_probabilities[i] = logits[static_cast<std::size_t>(query.tokens[i])] - log_sum;
  if (query.largest.empty()) return;
  std::fill(query.largest.begin(), query.largest.end(), TokenProbability{-1, -INFINITY});
  const auto found = query.largest.first(std::min(query.largest.size(), logits.size()));
  find_largest(logits, found);
  for (TokenProbability& each : found) each.log_probability -= log_sum;
}

Status HostLogits::begin(const Step& step, int vocabulary) {
  const bool direct = takes_all(step.wanted, vocabulary);
  const std::size_t bytes = step.wanted.size() * static_cast<std::size_t>(vocabulary) * sizeof(float);
  if (!direct && bytes > buffer_.bytes()) {
    auto larger = OwnedBuffer::create(*memory_, bytes);
    if (!larger) return tl::unexpected(larger.error());
    buffer_ = std::move(*larger);
  }
  wanted_ = step.wanted;
  rows_.columns = vocabulary;
  rows_.data = !direct               ? reinterpret_cast<float*>(buffer_.data())
               : step.wanted.empty() ? nullptr
                                     : step.wanted.front().logits;
  return {};
}

void HostLogits::deliver(int index) const {
  const LogitsQuery& query = wanted_[static_cast<std::size_t>(index)];
  const float* row = rows_.row(index);
  if (query.logits != nullptr && query.logits != row) std::copy_n(row, rows_.columns, query.logits);
  answer(query, {row, static_cast<std::size_t>(rows_.columns)}, log_sum_of_);
}

}  // namespace a2sf
