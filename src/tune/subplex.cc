#include "tune/subplex.h"

#include <nlopt.h>

#include <limits>
#include <memory>

namespace a2sf {
namespace {

class Search {
 public:
  Search(std::vector<double> start, const PointCost& cost) : cost_(cost), best_(std::move(start)) {}

  Result<std::vector<double>> run(const SubplexOptions& options) {
    const std::unique_ptr<nlopt_opt_s, decltype(&nlopt_destroy)> optimizer(
        nlopt_create(NLOPT_LN_SBPLX, static_cast<unsigned>(best_.size())), nlopt_destroy);
    optimizer_ = optimizer.get();
    nlopt_set_min_objective(optimizer_, call, this);
    nlopt_set_lower_bounds1(optimizer_, options.least);
    nlopt_set_upper_bounds1(optimizer_, options.most);
    nlopt_set_initial_step1(optimizer_, options.first_step);
    nlopt_set_xtol_abs1(optimizer_, options.tolerance);
    nlopt_set_maxeval(optimizer_, static_cast<int>(options.calls));
    std::vector<double> point = best_;
    double least = 0;
    nlopt_optimize(optimizer_, point.data(), &least);
    if (!status_) return tl::unexpected(status_.error());
    return best_;
  }

 private:
  static double call(unsigned count, const double* point, double*, void* search) {
    return static_cast<Search*>(search)->cost_of({point, count});
  }

  double cost_of(std::span<const double> point) {
    const auto cost = cost_(point);
    if (!cost) {
      status_ = tl::unexpected(cost.error());
      nlopt_force_stop(optimizer_);
      return 0;
    }
    if (*cost < least_) {
      least_ = *cost;
      best_.assign(point.begin(), point.end());
    }
    return *cost;
  }

  const PointCost& cost_;
  std::vector<double> best_;
  double least_ = std::numeric_limits<double>::infinity();
  nlopt_opt_s* optimizer_ = nullptr;
  Status status_;
};

}  // namespace

Result<std::vector<double>> search_subplex(std::vector<double> start, const SubplexOptions& options,
                                           const PointCost& cost) {
  return Search(std::move(start), cost).run(options);
}

}  // namespace a2sf
