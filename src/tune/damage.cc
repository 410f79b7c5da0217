#include "tune/damage.h"

#include <algorithm>
#include <utility>

#include "kernels/rows.h"
#include "model/model_parts.h"

namespace a2sf {
namespace {

constexpr std::int64_t kEveryRow = 4;  // neighbouring rows lose the same tokens: a quarter of them says as much

// The quadratic form |W d|^2 of the columns of an output projection that belong to one group of query heads, as its
// Gram matrix W^T W.
class GroupNorm {
 public:
  // rows: [embedding][heads * head_dim]; the group's columns begin at `first`.
  GroupNorm(std::span<const float> rows, std::size_t columns, std::size_t first, std::size_t width)
      : width_(width), gram_(width * width) {
    for (std::size_t row = 0; row < rows.size() / columns; ++row) {
      const float* w = rows.data() + row * columns + first;
      for (std::size_t i = 0; i < width; ++i) {
        for (std::size_t j = 0; j < width; ++j) gram_[i * width + j] += w[i] * w[j];
      }
    }
  }

  double operator()(std::span<const float> d) const {
    double sum = 0;
    for (std::size_t i = 0; i < width_; ++i) {
      const float* row = gram_.data() + i * width_;
      float product = 0;
      for (std::size_t j = 0; j < width_; ++j) product += row[j] * d[j];
      sum += static_cast<double>(product) * d[i];
    }
    return std::max(0.0, sum);
  }

 private:
  std::size_t width_;
  std::vector<float> gram_;
};

// [layer][kv head].
std::vector<std::vector<GroupNorm>> group_norms(const Weights& weights) {
  const Architecture& a = weights.architecture;
  const auto width = static_cast<std::size_t>(a.heads / a.kv_heads * a.head_dim);
  const auto columns = static_cast<std::size_t>(a.heads * a.head_dim);
  std::vector<float> rows(static_cast<std::size_t>(a.embedding) * columns);
  std::vector<std::vector<GroupNorm>> norms;
  for (const LayerWeights& layer : weights.layers) {
    for (std::int64_t row = 0; row < layer.output.rows; ++row)
      dequantise_row(layer.output, row, rows.data() + static_cast<std::size_t>(row) * columns);
    auto& of_layer = norms.emplace_back();
    for (std::size_t head = 0; head < static_cast<std::size_t>(a.kv_heads); ++head)
      of_layer.emplace_back(rows, columns, head * width, width);
  }
  return norms;
}

double squares(std::span<const float> x) {
  double sum = 0;
  for (const float each : x) sum += static_cast<double>(each) * each;
  return sum;
}

// Adds up the damage of one rung.
class OutputDamage final : public ShadowObserver {
 public:
  OutputDamage(const std::vector<std::vector<GroupNorm>>& norms, std::size_t width)
      : norms_(norms), width_(width), sums_(norms.size(), std::vector<double>(norms.front().size())) {}

  void outputs(const ShadowRow& row) override {
    if (row.position % kEveryRow != 0) return;
    const auto layer = static_cast<std::size_t>(row.layer);
    const double scale = 1 / squares(row.residual);
    difference_.resize(width_);
    for (std::size_t head = 0; head < sums_[layer].size(); ++head) {
      for (std::size_t i = 0; i < width_; ++i)
        difference_[i] = row.shadow[head * width_ + i] - row.output[head * width_ + i];
      sums_[layer][head] += scale * norms_[layer][head](difference_);
    }
  }

  const std::vector<std::vector<double>>& sums() const { return sums_; }

 private:
  const std::vector<std::vector<GroupNorm>>& norms_;
  std::size_t width_;
  std::vector<std::vector<double>> sums_;
  std::vector<float> difference_;
};

// Reads a window with the full cache and a shadow of each rung.
Status read_window(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> window,
                   const PolicySpec& spec, std::span<const std::int64_t> budgets,
                   std::span<const std::shared_ptr<OutputDamage>> rungs,
                   const std::function<bool(std::size_t)>& keep_going) {
  const auto length = static_cast<std::int64_t>(window.size());
  auto session = Session::create(
      model, {.policy = parse_policy("full").value(), .sequence_tokens = length, .most_tokens = length});
  if (!session) return tl::unexpected(session.error());
  for (std::size_t i = 0; i < budgets.size(); ++i) {
    if (auto added = session->add_shadow(with_budget(spec, budgets[i]), rungs[i]); !added) return added;
  }
  return session->feed(window, WantLogits::none, false, keep_going);
}

}  // namespace

PolicySpec with_budget(PolicySpec spec, std::int64_t budget) {
  spec.budget = {BudgetCount{budget}};
  return spec;
}

std::span<const std::int32_t> TuneWindows::window(std::size_t i) const {
  const std::size_t last = tokens.size() - length;
  return tokens.subspan(count == 1 ? 0 : last * i / (count - 1), length);
}

Result<DamageLadder> measure_output_damage(const std::shared_ptr<const Model>& model, const TuneWindows& windows,
                                           const PolicySpec& spec, std::span<const std::int64_t> budgets,
                                           const TuneProgress& progress) {
  const Weights& weights = model->parts().weights;
  const Architecture& a = weights.architecture;
  const auto norms = group_norms(weights);
  const auto width = static_cast<std::size_t>(a.heads / a.kv_heads * a.head_dim);
  std::vector<std::shared_ptr<OutputDamage>> rungs;
  for (std::size_t i = 0; i < budgets.size(); ++i) rungs.push_back(std::make_shared<OutputDamage>(norms, width));
  const std::size_t total = windows.count * windows.length;
  for (std::size_t i = 0; i < windows.count; ++i) {
    const auto keep_going = [&](std::size_t fed) { return !progress || progress(i * windows.length + fed, total); };
    auto status = read_window(model, windows.window(i), spec, budgets, rungs, keep_going);
    if (!status) return tl::unexpected(status.error());
  }
  DamageLadder ladder{{budgets.begin(), budgets.end()}, static_cast<std::int64_t>(windows.length), {}};
  const double rows = static_cast<double>(total) / static_cast<double>(kEveryRow);
  for (std::size_t layer = 0; layer < norms.size(); ++layer) {
    auto& of_layer = ladder.damage.emplace_back();
    for (std::size_t head = 0; head < norms[layer].size(); ++head) {
      auto& of_head = of_layer.emplace_back();
      for (const auto& rung : rungs) of_head.push_back(rung->sums()[layer][head] / rows);
    }
  }
  return ladder;
}

}  // namespace a2sf
