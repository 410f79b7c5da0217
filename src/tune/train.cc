#include "tune/train.h"

#include <Eigen/Dense>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/random_bits.h"

namespace a2sf {
namespace {

using Columns = Eigen::Matrix<float, kFeatures, Eigen::Dynamic>;  // a token each
using Row = Eigen::RowVectorXf;

constexpr double kRidge = 1e-3;  // of the number of samples: features are standardised
constexpr int kUnits = 16;
constexpr std::size_t kSteps = 5000, kDecisionsPerStep = 8;
constexpr float kFirstRate = 0.01F;
constexpr float kLittle = 0.05F;  // drawn attention: tokens that draw less are hardly told apart

// The samples as a layer of the model sees them.
struct Examples {
  Columns features;  // standardised
  Row targets;       // less their mean over the decision
  std::vector<std::size_t> ends;

  std::size_t begin_of(std::size_t decision) const { return decision == 0 ? 0 : ends[decision - 1]; }
};

template <class Part>
void subtract_mean(Part&& part) {
  part.colwise() -= part.rowwise().mean().eval();
}

Examples prepare(const AttentionSamples& samples, LearnedLayer& layer) {
  const auto count = static_cast<Eigen::Index>(samples.features.size());
  Examples examples{Eigen::Map<const Columns>(samples.features.front().data(), kFeatures, count), {}, samples.ends};
  examples.targets = (Eigen::Map<const Row>(samples.drawn.data(), count).array() + kLittle).log();
  examples.targets += examples.features.row(kLogValueNorm);
  const Eigen::Matrix<float, kFeatures, 1> mean = examples.features.rowwise().mean();
  examples.features.colwise() -= mean;
  const Eigen::Matrix<float, kFeatures, 1> deviation =
      (examples.features.rowwise().squaredNorm() / static_cast<float>(count)).cwiseSqrt().cwiseMax(1e-3F);
  examples.features.array().colwise() /= deviation.array();
  Eigen::Map<Eigen::Matrix<float, kFeatures, 1>>(layer.mean.data()) = mean;
  Eigen::Map<Eigen::Matrix<float, kFeatures, 1>>(layer.deviation.data()) = deviation;
  for (std::size_t d = 0; d < samples.ends.size(); ++d) {
    const auto begin = static_cast<Eigen::Index>(examples.begin_of(d)),
               end = static_cast<Eigen::Index>(samples.ends[d]);
    subtract_mean(examples.targets.middleCols(begin, end - begin));
  }
  return examples;
}

// One parameter of the network with what Adam keeps of its gradients.
class Adam {
 public:
  explicit Adam(Eigen::MatrixXf start) : value(std::move(start)), gradient(zero()), first_(zero()), second_(zero()) {}

  void step(float rate, std::size_t number) {
    constexpr float kFirst = 0.9F, kSecond = 0.999F, kEpsilon = 1e-8F;  // as published
    first_ = kFirst * first_ + (1 - kFirst) * gradient;
    second_ = kSecond * second_ + (1 - kSecond) * gradient.cwiseAbs2();
    const auto n = static_cast<float>(number);
    value.array() -= rate * (first_.array() / (1 - std::pow(kFirst, n))) /
                     ((second_.array() / (1 - std::pow(kSecond, n))).sqrt() + kEpsilon);
    gradient.setZero();
  }

  Eigen::MatrixXf value, gradient;

 private:
  Eigen::MatrixXf zero() const { return Eigen::MatrixXf::Zero(value.rows(), value.cols()); }

  Eigen::MatrixXf first_, second_;
};

// Uniform, with the variance 2 / inputs that keeps the scale behind rectified units (He et al., arXiv 1502.01852).
Eigen::MatrixXf random_weights(int rows, int inputs, RandomBits& random) {
  const double most = std::sqrt(6.0 / inputs);
  return Eigen::MatrixXf::NullaryExpr(rows, inputs, [&] { return static_cast<float>(most * random.symmetric()); });
}

class Network {
 public:
  explicit Network(RandomBits& random)
      : hidden_(random_weights(kUnits, kFeatures, random)),
        bias_(Eigen::MatrixXf::Zero(kUnits, 1)),
        output_(random_weights(1, kUnits, random)) {}

  // Adds the gradient of the squared error of the predictions less their mean.
  void learn(const Eigen::Ref<const Columns>& features, const Eigen::Ref<const Row>& targets) {
    units_ = hidden_.value * features;
    units_.colwise() += bias_.value.col(0);
    units_ = units_.cwiseMax(0);
    error_ = output_.value * units_ - targets;
    subtract_mean(error_);
    error_ /= static_cast<float>(targets.size());
    output_.gradient += error_ * units_.transpose();
    back_ = (output_.value.transpose() * error_).cwiseProduct((units_.array() > 0).cast<float>().matrix());
    hidden_.gradient += back_ * features.transpose();
    bias_.gradient += back_.rowwise().sum();
  }

  void step(float rate, std::size_t number) {
    for (Adam* each : {&hidden_, &bias_, &output_}) each->step(rate, number);
  }

  void write(LearnedLayer& layer) const {
    layer.hidden.resize(kUnits);
    for (int unit = 0; unit < kUnits; ++unit) {
      for (int f = 0; f < kFeatures; ++f)
        layer.hidden[static_cast<std::size_t>(unit)][static_cast<std::size_t>(f)] = hidden_.value(unit, f);
    }
    layer.bias.assign(bias_.value.data(), bias_.value.data() + kUnits);
    layer.output.assign(output_.value.data(), output_.value.data() + kUnits);
  }

 private:
  Adam hidden_, bias_, output_;
  Eigen::MatrixXf units_, back_;
  Eigen::MatrixXf error_;
};

// A layer that decides nothing lets the older go.
LearnedLayer indifferent() {
  LearnedLayer layer;
  layer.output.resize(kFeatures);
  return layer;
}

}  // namespace

LearnedLayer train_linear(const AttentionSamples& samples) {
  LearnedLayer layer = indifferent();
  if (samples.ends.empty()) return layer;
  Examples examples = prepare(samples, layer);
  using Square = Eigen::Matrix<double, kFeatures, kFeatures>;
  using Vector = Eigen::Matrix<double, kFeatures, 1>;
  Square products = Square::Identity() * kRidge * static_cast<double>(samples.features.size());
  Vector with_targets = Vector::Zero();
  for (std::size_t d = 0; d < examples.ends.size(); ++d) {
    const auto begin = static_cast<Eigen::Index>(examples.begin_of(d));
    const auto count = static_cast<Eigen::Index>(examples.ends[d]) - begin;
    auto features = examples.features.middleCols(begin, count);
    subtract_mean(features);
    products += (features * features.transpose()).cast<double>();
    with_targets += (features * examples.targets.middleCols(begin, count).transpose()).cast<double>();
  }
  Eigen::Map<Eigen::Matrix<float, kFeatures, 1>>(layer.output.data()) =
      products.ldlt().solve(with_targets).cast<float>();
  return layer;
}

LearnedLayer train_mlp(const AttentionSamples& samples, const std::function<bool(double)>& keep_going) {
  LearnedLayer layer = indifferent();
  if (samples.ends.empty()) return layer;
  const Examples examples = prepare(samples, layer);
  RandomBits random(1);
  Network network(random);
  for (std::size_t step = 0; step < kSteps; ++step) {
    for (std::size_t i = 0; i < kDecisionsPerStep; ++i) {
      const std::size_t d = random.below(static_cast<std::uint32_t>(examples.ends.size()));
      const auto begin = static_cast<Eigen::Index>(examples.begin_of(d));
      const auto count = static_cast<Eigen::Index>(examples.ends[d]) - begin;
      network.learn(examples.features.middleCols(begin, count), examples.targets.middleCols(begin, count));
    }
    const double done = static_cast<double>(step) / kSteps;
    network.step(kFirstRate * static_cast<float>(1 - done), step + 1);
    if (keep_going && !keep_going(done)) break;
  }
  network.write(layer);
  return layer;
}

}  // namespace a2sf
