// Expected attention (arXiv 2510.00636): queries to come are taken for a Gaussian; what it is expected to give a token,
// times the length of its value, is what the token is worth.
#include <cmath>
#include <numeric>

#include "policy/hooks/hooks.h"
#include "policy/hooks/options.h"
#include "policy/hooks/ranking.h"

namespace a2sf {
namespace {

double dot(std::span<const float> a, std::span<const float> b) {
  return std::transform_reduce(a.begin(), a.end(), b.begin(), 0.0F);
}

class ExpectedHook final : public RankingHook {
 public:
  ExpectedHook(const HookShape& shape, int rows) : RankingHook(shape), rows_(rows) {}
  std::unique_ptr<Hook> clone() const override { return std::make_unique<ExpectedHook>(*this); }

 private:
  // Of the tokens that may go: the mean over the group of their shares in E(exp(scale q.k)), times |v|.
  void score(const HookHead& head, std::vector<float>& scores) override {
    going_.clear();
    for (int slot = 0; slot < head.slots(); ++slot) {
      if (head.may_go(slot)) going_.push_back(slot);
    }
    worth_.assign(going_.size(), 0.0);
    for (int g = 0; g < head.group(); ++g) add_shares(head, g);
    vector_.resize(static_cast<std::size_t>(head.head_dim()));
    for (std::size_t i = 0; i < going_.size(); ++i) {
      head.read_value(going_[i], vector_);
      const double worth = worth_[i] * std::sqrt(dot(vector_, vector_));
      scores[static_cast<std::size_t>(going_[i])] =
          std::max(static_cast<float>(worth), std::numeric_limits<float>::min());
    }
  }

  void add_shares(const HookHead& head, int query_head) {
    logs_.clear();
    for (const int slot : going_) logs_.push_back(log_expectation(head, query_head, slot));
    const double largest = logs_.empty() ? 0 : *std::max_element(logs_.begin(), logs_.end());
    double sum = 0;
    for (double& log : logs_) sum += log = std::exp(log - largest);
    for (std::size_t i = 0; i < logs_.size(); ++i) worth_[i] += logs_[i] / sum;
  }

  // log E(exp(x)) = mean(x) + variance(x) / 2 of a Gaussian x, here the logits that the last rows give the key. So the
  // covariance of the queries need not be there: k' cov k is the variance of q.k.
  double log_expectation(const HookHead& head, int query_head, int slot) {
    vector_.resize(static_cast<std::size_t>(head.head_dim()));
    head.read_key(slot, vector_);
    double sum = 0, squares = 0, rows = 0;
    for (int back = 0; back < rows_; ++back) {
      const auto query = head.query(back, query_head);
      if (query.empty()) break;  // the sequence is shorter
      const double logit = static_cast<double>(head.scale()) * dot(query, vector_);
      sum += logit;
      squares += logit * logit;
      ++rows;
    }
    if (rows == 0) return 0;
    const double mean = sum / rows;
    return mean + (squares / rows - mean * mean) / 2;
  }

  int rows_;
  std::vector<int> going_;            // slots that may go
  std::vector<double> worth_, logs_;  // of those
  std::vector<float> vector_;         // a key or a value
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
    const auto rows = parse_whole(option, value, 1, 1024);
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
