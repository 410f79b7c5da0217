// SnapKV (arXiv 2404.14469): of a prompt stays what its last rows attend to, with its neighbours.
#include "policy/hooks/snapkv.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "policy/hooks/hooks.h"
#include "policy/hooks/lowest_first.h"
#include "policy/hooks/options.h"

namespace a2sf {
namespace {

class SnapKv final : public SnapKvFactory<SnapKv> {
 public:
  std::string_view name() const override { return "snapkv"; }
  std::unique_ptr<Hook> make(const HookShape& shape) const override {
    return std::make_unique<SnapKvHook>(shape, window_);
  }
};

}  // namespace

std::shared_ptr<const HookFactory> snapkv() { return std::make_shared<SnapKv>(); }

Result<bool> ObservationWindow::set(std::string_view option, std::string_view value) {
  if (option != "window" && option != "kernel") return false;
  const auto number = read_whole_number(option, value, 1, 1024);
  if (!number) return tl::unexpected(number.error());
  if (option == "kernel" && *number % 2 == 0)
    return fail(ErrorKind::bad_input, fmt::format("kernel '{}' has no middle: it must be odd", value));
  (option == "window" ? rows : kernel) = *number;
  return true;
}

std::string ObservationWindow::options() const {
  const ObservationWindow standard;
  std::string text;
  if (rows != standard.rows) text += fmt::format(":window={}", rows);
  if (kernel != standard.kernel) text += fmt::format(":kernel={}", kernel);
  return text;
}

// Sums rank as means do: all tokens of a layer have as many terms. The kernel reaches beyond both ends, where
// there are no votes: a zero padding, as published.
void SnapKvHook::score(const HookHead& head, std::vector<float>& scores) {
  find_older(head);
  count_votes(head);
  const auto count = std::ssize(older_), half = std::ptrdiff_t{window_.kernel / 2};
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    const auto first = votes_.begin() + std::max(i - half, std::ptrdiff_t{0});
    const auto end = votes_.begin() + std::min(i + half + 1, count);
    scores[static_cast<std::size_t>(older_[static_cast<std::size_t>(i)])] =
        std::max(static_cast<float>(std::accumulate(first, end, 0.0)), std::numeric_limits<float>::min());
  }
}

// Up to the newest token that may go.
void SnapKvHook::find_older(const HookHead& head) {
  std::int32_t newest = -1;
  for (int slot = 0; slot < head.slots(); ++slot) {
    if (head.may_go(slot)) newest = std::max(newest, head.position(slot));
  }
  older_.clear();
  for (int slot = 0; slot < head.slots(); ++slot) {
    if (head.position(slot) >= 0 && head.position(slot) <= newest) older_.push_back(slot);
  }
  sort_by_position(head, older_);
}

// There are fewer rows where the sequence is shorter than the window.
void SnapKvHook::count_votes(const HookHead& head) {
  votes_.assign(older_.size(), 0.0);
  for (int back = 0; back < window_.rows; ++back) {
    for (int g = 0; g < head.group(); ++g) {
      const auto given = head.probabilities(back, g);
      for (std::size_t i = 0; i < older_.size() && !given.empty(); ++i)
        votes_[i] += static_cast<double>(given[static_cast<std::size_t>(older_[i])]);
    }
  }
}

}  // namespace a2sf
