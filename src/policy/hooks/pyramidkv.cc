// PyramidKV (arXiv 2406.02069): SnapKV, with more tokens in the first layers and fewer in the last.
#include <cmath>

#include "policy/hooks/hooks.h"
#include "policy/hooks/snapkv.h"

namespace a2sf {
namespace {

class PyramidKv final : public SnapKvFactory<PyramidKv> {
 public:
  std::string_view name() const override { return "pyramidkv"; }
  // Beside the window, the last layer keeps a 20th (beta of the published code) of the mean, the first layer what makes
  // up for it, and the parts between fall linearly. Budgets that the window fills are equal. The published code knows
  // the prompt's length and gives no layer more; here the first layers may have room that is never filled.
  std::int64_t layer_budget(std::int64_t budget, int layer, int layers) const override {
    if (budget <= window_.rows || layers == 1) return budget;
    const auto mean = static_cast<double>(budget - window_.rows);
    const double last = mean / 20, first = 2 * mean - last;
    return window_.rows + std::lround(first - (first - last) * layer / (layers - 1));
  }
  std::unique_ptr<Hook> make(const HookShape& shape) const override {
    return std::make_unique<SnapKvHook>(shape, window_);
  }
};

}  // namespace

std::shared_ptr<const HookFactory> pyramidkv() { return std::make_shared<PyramidKv>(); }

}  // namespace a2sf
