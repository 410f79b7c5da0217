// Expected attention (arXiv 2510.00636): queries to come are taken for a Gaussian; what it is expected to give a token,
// times the length of its value, is what the token is worth.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "policy/hooks/hooks.h"
#include "policy/hooks/options.h"
#include "policy/hooks/ranking.h"

namespace a2sf {
namespace {

class ExpectedHook final : public RankingHook {
 public:
  ExpectedHook(const HookShape& shape, int rows) : RankingHook(shape), rows_(rows) {}
  std::unique_ptr<Hook> clone() const override { return std::make_unique<ExpectedHook>(*this); }

 private:
  // Of the tokens that may go: the mean over the group of their shares in E(exp(scale q.k)), times |v|.
  void score(const HookHead& head, std::vector<float>& scores) override {
    vector_.resize(static_cast<std::size_t>(head.head_dim()));
    going_.clear();
    for (int slot = 0; slot < head.slots(); ++slot) {
      if (head.may_go(slot)) going_.push_back(slot);
    }
    worth_.assign(going_.size(), 0.0);
    for (int g = 0; g < head.group(); ++g) add_shares(head, g);
    for (std::size_t i = 0; i < going_.size(); ++i) {
      head.read_value(going_[i], vector_);
      const double length = std::sqrt(std::inner_product(vector_.begin(), vector_.end(), vector_.begin(), 0.0));
      scores[static_cast<std::size_t>(going_[i])] =
          std::max(static_cast<float>(worth_[i] * length), std::numeric_limits<float>::min());
    }
  }

  void add_shares(const HookHead& head, int query_head) {
    take_queries(head, query_head);
    logs_.clear();
    for (const int slot : going_) {
      head.read_key(slot, vector_);
      logs_.push_back(log_expectation(static_cast<double>(head.scale())));
    }
    const double largest = logs_.empty() ? 0 : *std::max_element(logs_.begin(), logs_.end());
    double sum = 0;
    for (double& log : logs_) sum += log = std::exp(log - largest);
    for (std::size_t i = 0; i < logs_.size(); ++i) worth_[i] += logs_[i] / sum;
  }

  // There are fewer rows where the sequence is shorter.
  void take_queries(const HookHead& head, int query_head) {
    std::size_t rows = 0;
    while (static_cast<int>(rows) < rows_ && !head.query(static_cast<int>(rows), query_head).empty()) ++rows;
    products_.resize(rows);
    queries_.resize(rows * vector_.size());
    for (std::size_t row = 0; row < rows; ++row) {
      const auto query = head.query(static_cast<int>(row), query_head);
      for (std::size_t d = 0; d < query.size(); ++d) queries_[d * rows + row] = query[d];
    }
  }

  // log E(exp(x)) = mean(x) + variance(x) / 2 of a Gaussian x, here the logits that the last rows give the key in
  // vector_. So the covariance of the queries need not be there: k' cov k is the variance of q.k.
  double log_expectation(double scale) {
    const std::size_t rows = products_.size();
    std::fill(products_.begin(), products_.end(), 0.0F);
    auto dimension = queries_.cbegin();
    for (const float x : vector_) {
      std::transform(products_.begin(), products_.end(), dimension, products_.begin(),
                     [x](float product, float q) { return product + x * q; });
      dimension += static_cast<std::ptrdiff_t>(rows);
    }
    double sum = 0, squares = 0;
    for (const float product : products_) {
      const double logit = scale * static_cast<double>(product);
      sum += logit;
      squares += logit * logit;
    }
    const double mean = sum / static_cast<double>(rows);
    return mean + (squares / static_cast<double>(rows) - mean * mean) / 2;
  }

  int rows_;
  std::vector<int> going_;            // slots that may go
  std::vector<double> worth_, logs_;  // [of going_]
  std::vector<float> vector_;         // a key or a value
  std::vector<float> queries_;        // [dim][row] of a query head: one dimension of all rows is added at a time
  std::vector<float> products_;       // [row], with a key
};

class Expected final : public HookFactory {
 public:
  std::string_view name() const override { return "expected"; }
  HookNeeds needs() const override { return RankingHook::with_rank({.last_rows = rows_, .keys_values = true}); }
  std::unique_ptr<Hook> make(const HookShape& shape) const override {
    return std::make_unique<ExpectedHook>(shape, rows_);
  }
  Result<std::shared_ptr<const HookFactory>> with(std::string_view option, std::string_view value) const override {
    if (option != "window") return HookFactory::with(option, value);
    const auto rows = read_whole_number(option, value, 1, 1024);
    if (!rows) return tl::unexpected(rows.error());
    auto changed = std::make_shared<Expected>(*this);
    changed->rows_ = *rows;
    return changed;
  }
  std::string options() const override { return rows_ == kRows ? "" : ":window=" + std::to_string(rows_); }

 private:
  static constexpr int kRows = 64;

  int rows_ = kRows;
};

}  // namespace

std::shared_ptr<const HookFactory> expected() { return std::make_shared<Expected>(); }

}  // namespace a2sf
