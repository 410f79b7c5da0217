#include "tune/subplex.h"

#include <nlopt.h>

#include <limits>
#include <memory>

namespace a2sf {
namespace {

class Search {
 public:
  Search(const SubplexSearch& search, const SubplexCost& cost)
      : cost_(cost),
        best_(search.start),
        optimizer_(nlopt_create(NLOPT_LN_SBPLX, static_cast<unsigned>(search.start.size())), nlopt_destroy) {
    nlopt_set_min_objective(optimizer_.get(), call, this);
    nlopt_set_lower_bounds1(optimizer_.get(), search.low);
    nlopt_set_upper_bounds1(optimizer_.get(), search.high);
    nlopt_set_initial_step1(optimizer_.get(), search.first_step);
    nlopt_set_xtol_abs1(optimizer_.get(), search.tolerance);
    nlopt_set_maxeval(optimizer_.get(), static_cast<int>(search.calls));
  }

  Result<std::vector<double>> run() {
    std::vector<double> point = best_;
    double least = 0;
    nlopt_optimize(optimizer_.get(), point.data(), &least);
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
      nlopt_force_stop(optimizer_.get());
      return 0;
    }
    if (*cost < least_) {
      least_ = *cost;
      best_.assign(point.begin(), point.end());
    }
    return *cost;
  }

  const SubplexCost& cost_;
  double least_ = std::numeric_limits<double>::infinity();
  std::vector<double> best_;
  std::unique_ptr<nlopt_opt_s, decltype(&nlopt_destroy)> optimizer_;
  Status status_;
};

}  // namespace

Result<std::vector<double>> least_by_subplex(const SubplexSearch& search, const SubplexCost& cost) {
  return Search(search, cost).run();
}

}  // namespace a2sf
