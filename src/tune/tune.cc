#include "tune/tune.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "eval/segments.h"
#include "policy/budget.h"
#include "tune/head_divergence.h"
#include "tune/hybrid.h"
#include "tune/layer_weights.h"
#include "tune/least_damage.h"
#include "tune/lost_mass.h"

namespace a2sf {
namespace {

constexpr std::int64_t kLeastBudget = 4;
constexpr std::int64_t kLongFrom = 64;      // means from here on are for long texts
constexpr std::size_t kWindowsPerMean = 8;  // a short window is so many times its mean
constexpr std::size_t kShortestWindow = 64;
constexpr std::size_t kShortTokens = 1024;  // in all windows of a shorter length together

// Powers of two below the window's length; of four, where every rung of every head is read by itself.
std::vector<std::int64_t> rungs_of(std::size_t length, DamageMeasure measure) {
  const std::int64_t factor = measure == DamageMeasure::divergence ? 4 : 2;
  std::vector<std::int64_t> rungs;
  for (std::int64_t budget = kLeastBudget; budget < static_cast<std::int64_t>(length); budget *= factor)
    rungs.push_back(budget);
  return rungs;
}

using Table = std::vector<std::vector<double>>;

// Shares with four digits: what is measured is known no better.
Table shares_of(Table budgets, double mean) {
  for (auto& layer : budgets) {
    for (double& budget : layer) budget = std::max(std::round(budget / mean * 1e4) / 1e4, 1e-4);
  }
  return budgets;
}

TuneWindows windows_of(std::size_t length, std::span<const std::int32_t> tokens, const TuneOptions& options) {
  const bool is_long = length == options.longest_window;
  const std::size_t count = is_long ? options.windows : std::max<std::size_t>(1, kShortTokens / length);
  return {tokens, length, std::max<std::size_t>(1, std::min(count, tokens.size() / length))};
}

// One pass after the other, and how far they are together.
class Tuner {
 public:
  Tuner(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens, const TuneOptions& options,
        const TuneProgress& progress)
      : model_(model), tokens_(tokens), options_(options), progress_(progress) {
    for (const std::int64_t mean : options.means) {
      const std::size_t length = window_for(mean, options.longest_window);
      if (mean < static_cast<std::int64_t>(length)) means_of_[length].push_back(mean);
    }
  }

  Result<TunedBudgets> run() {
    if (auto valid = check(); !valid) return tl::unexpected(valid.error());
    for (const auto& [length, means] : means_of_) {
      if (auto measured = measure(length); !measured) return tl::unexpected(measured.error());
    }
    if (is_weighed()) {
      if (auto weighed = weigh_layers(); !weighed) return tl::unexpected(weighed.error());
    }
    if (options_.long_term > 0)
      bounded_ = bound_all_but_worst(ladders_.at(longest()), hurting_rung(), options_.long_term);
    std::vector<ShareTable> tables;
    for (const auto& [length, means] : means_of_) {
      for (const std::int64_t mean : means) {
        tables.push_back(share(length, mean));
        if (!options_.memories) continue;
        if (auto found = find_memories(length, tables.back()); !found) return tl::unexpected(found.error());
      }
    }
    std::sort(tables.begin(), tables.end(), [](const ShareTable& a, const ShareTable& b) { return a.mean < b.mean; });
    return TunedBudgets{std::move(tables), bounded_};
  }

 private:
  std::size_t longest() const { return means_of_.rbegin()->first; }
  TuneWindows windows(std::size_t length) const { return windows_of(length, tokens_, options_); }
  // The output's error is one of a layer; the other measures need no weights.
  bool is_weighed() const { return options_.measure == DamageMeasure::output; }
  std::size_t weighing_tokens() const {
    return is_weighed() ? longest() * static_cast<std::size_t>(model_->info().layers + 1) : 0;
  }
  bool is_hybrid() const { return options_.global_share < 1; }
  std::size_t layers() const { return static_cast<std::size_t>(model_->info().layers); }
  std::size_t kv_heads() const { return static_cast<std::size_t>(model_->info().kv_heads); }
  // What is read to measure damage in windows of this length, in tokens.
  std::size_t measuring_tokens(std::size_t length) const {
    const std::size_t once = length * windows(length).count * (is_hybrid() ? 2 : 1);
    if (options_.measure != DamageMeasure::divergence) return once;
    return once * head_divergence_readings(*model_, rungs_of(length, options_.measure).size());
  }
  std::size_t searching_tokens(std::size_t length) const {
    if (!options_.memories) return 0;
    return calls_of(*options_.memories, layers(), kv_heads()) * readings_of(options_.memory_cost) * length *
           windows(length).count;
  }

  Status check() {
    if (means_of_.empty()) return fail(ErrorKind::bad_input, "no mean budget is smaller than a window");
    if (means_of_.begin()->second.front() < kLeastBudget) {
      return fail(ErrorKind::bad_input, fmt::format("a mean budget of {} is too small to share out: {} is the least",
                                                    means_of_.begin()->second.front(), kLeastBudget));
    }
    if (tokens_.size() < longest()) {
      return fail(ErrorKind::bad_input, fmt::format("the text has {} tokens, fewer than one window of {}: choose a "
                                                    "smaller --ctx",
                                                    tokens_.size(), longest()));
    }
    if (options_.long_term >= layers()) {
      return fail(ErrorKind::bad_input,
                  fmt::format("{} layers that keep everything: the model has {}, and at least one "
                              "must be bounded; {} are the most",
                              options_.long_term, layers(), layers() - 1));
    }
    total_ = weighing_tokens();
    for (const auto& [length, means] : means_of_)
      total_ += measuring_tokens(length) + searching_tokens(length) * means.size();
    return check_tokens(tokens_, model_->info().vocabulary);
  }

  Status measure(std::size_t length) {
    constexpr std::array kMeasuringFunctions = {measure_output_damage, measure_head_divergence, measure_lost_mass};
    const auto measure = kMeasuringFunctions[static_cast<std::size_t>(options_.measure)];
    const auto add = [&](const PolicySpec& policy, Ladders& ladders) -> Status {
      auto ladder = measure(model_, windows(length), policy, rungs_of(length, options_.measure), counted());
      if (!ladder) return tl::unexpected(ladder.error());
      ladders.emplace(length, std::move(*ladder));
      done_ += measuring_tokens(length) / (is_hybrid() ? 2 : 1);
      return {};
    };
    if (auto added = add(options_.policy, ladders_); !added || !is_hybrid()) return added;
    return add(local_policy(options_.policy), local_ladders_);
  }

  // Of the longest windows: that of the smallest mean.
  std::size_t hurting_rung() const {
    const auto& budgets = ladders_.at(longest()).budgets;
    const std::int64_t smallest = means_of_.rbegin()->second.front();
    const auto at = std::upper_bound(budgets.begin(), budgets.end(), smallest) - 1;
    return static_cast<std::size_t>(std::max(at, budgets.begin()) - budgets.begin());
  }

  // Measured in the longest windows alone, at a budget that hurts: a layer's part in the predictions is the same in
  // all.
  Status weigh_layers() {
    const auto weights = measure_layer_weights(model_, windows(longest()).window(0), options_.policy,
                                               ladders_.at(longest()), hurting_rung(), counted());
    if (!weights) return tl::unexpected(weights.error());
    for (Ladders* ladders : {&ladders_, &local_ladders_}) {
      for (auto& [length, each] : *ladders) weigh(each, *weights);
    }
    done_ += weighing_tokens();
    return {};
  }

  // The table of a mean.
  ShareTable share(std::size_t length, std::int64_t mean) const {
    const auto budget = static_cast<double>(mean);
    ShareTable table{.mean = mean, .shares = {}};
    DamageLadder ladder = of_layers(ladders_.at(length), bounded_);
    if (is_hybrid()) {
      const DamageLadder local = of_layers(local_ladders_.at(length), bounded_);
      const Table is_local = choose_local_heads(ladder, local, budget, options_.global_share);
      ladder = hybrid_ladder(ladder, local, is_local);
      table.local = for_all_layers(is_local, bounded_, layers(), 0);
    }
    const Table shares = shares_of(least_damage_budgets(ladder, budget, kLeastBudget), budget);
    table.shares = for_all_layers(shares, bounded_, layers(), 1);
    return table;
  }

  // The policy at the table's mean, in the windows that the table was measured in.
  Status find_memories(std::size_t length, ShareTable& table) {
    const auto cost = [&](const MemoryTable& memories) -> Result<double> {
      PolicySpec spec = with_budget(options_.policy, table.mean);
      spec.budget.layers = bounded_;
      Profile profile{.tables = {table}};
      profile.tables.front().memories = memories;
      if (auto shared = share_by(spec, std::make_shared<const Profile>(std::move(profile))); !shared)
        return tl::unexpected(shared.error());
      std::size_t read = 0;
      const auto read_so_far = [&](std::size_t done, std::size_t total) {
        read = total;
        return counted()(done, total);
      };
      auto of_text = text_cost(model_, windows(length), spec, options_.memory_cost, read_so_far);
      done_ += read;
      return of_text;
    };
    const std::size_t begin = done_;
    auto memories = search_memories(layers(), kv_heads(), *options_.memories, cost);
    if (!memories) return tl::unexpected(memories.error());
    table.memories = std::move(*memories);
    done_ = begin + searching_tokens(length);
    return {};
  }

  TuneProgress counted() const {
    return [this](std::size_t done, std::size_t) { return !progress_ || progress_(done_ + done, total_); };
  }

  using Ladders = std::map<std::size_t, DamageLadder>;  // by the length of their windows

  const std::shared_ptr<const Model>& model_;
  std::span<const std::int32_t> tokens_;
  const TuneOptions& options_;
  const TuneProgress& progress_;
  std::map<std::size_t, std::vector<std::int64_t>> means_of_;  // by the length of their windows
  Ladders ladders_, local_ladders_;
  std::vector<LayerRange> bounded_;
  std::size_t done_ = 0, total_ = 0;
};

}  // namespace

std::size_t window_for(std::int64_t mean, std::size_t longest) {
  if (mean >= kLongFrom) return longest;
  return std::min(longest, std::max(kShortestWindow, kWindowsPerMean * static_cast<std::size_t>(mean)));
}

TuneWindows windows_for(std::int64_t mean, std::span<const std::int32_t> tokens, const TuneOptions& options) {
  return windows_of(window_for(mean, options.longest_window), tokens, options);
}

Result<TunedBudgets> tune_budgets(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens,
                                  const TuneOptions& options, const TuneProgress& progress) {
  return Tuner(model, tokens, options, progress).run();
}

}  // namespace a2sf
