// An eviction policy of one's own, after R-KV and KeyDiff: what is little attended to, or much like the others, goes.
// Says how well a text is predicted under it and under others: hook MODEL.gguf TEXT_FILE [BUDGET]
#include <a2sf/a2sf.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <numeric>
#include <type_traits>
#include <utility>

using Vector = std::vector<float>;

float dot(const Vector& a, const Vector& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 1e-20F); }

// One per sequence. This one keeps nothing from call to call, so a fork of the sequence may have any other.
class DiverseHook : public a2sf::Hook {
 public:
  explicit DiverseHook(int mix) : mix_(static_cast<float>(mix) / 100) {}
  std::unique_ptr<Hook> clone() const override { return std::make_unique<DiverseHook>(*this); }

  // The heads of a layer hold their budgets and a block more. Sinks, pins and recent tokens may not go.
  void evict(a2sf::HookLayer& layer) override {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      a2sf::HookHead& head = layer.head(h);
      const Vector worth = worth_of(head);
      std::vector<int> candidates;
      for (int slot = 0; slot < head.slots(); ++slot) {
        if (head.may_go(slot)) candidates.push_back(slot);
      }
      std::sort(candidates.begin(), candidates.end(),
                [&](int a, int b) { return worth[static_cast<std::size_t>(a)] < worth[static_cast<std::size_t>(b)]; });
      for (std::size_t i = 0; head.held() > head.budget(); ++i) head.evict(candidates[i]);
    }
  }

 private:
  // [slot]: its share of the accumulated attention, less the likeness of its key to the mean key.
  Vector worth_of(const a2sf::HookHead& head) const {
    const auto slots = static_cast<std::size_t>(head.slots()), dim = static_cast<std::size_t>(head.head_dim());
    std::vector<Vector> keys(slots, Vector(dim));
    Vector mean(dim), worth(slots);
    float most = 1e-20F;
    for (std::size_t i = 0; i < slots; ++i) {
      const int slot = static_cast<int>(i);
      if (head.position(slot) < 0) continue;  // no token is there
      head.read_key(slot, keys[i]);
      const float length = std::sqrt(dot(keys[i], keys[i]));
      for (std::size_t d = 0; d < dim; ++d) mean[d] += keys[i][d] /= length;
      most = std::max(most, head.score(slot));
    }
    const float length = std::sqrt(dot(mean, mean));
    for (std::size_t i = 0; i < slots; ++i)
      worth[i] = (1 - mix_) * head.score(static_cast<int>(i)) / most - mix_ * dot(keys[i], mean) / length;
    return worth;
  }

  float mix_;
};

// What the policy is called, what its hooks want to see, and the option of its own: "diverse:mix=30", in percent.
class Diverse : public a2sf::HookFactory {
 public:
  explicit Diverse(int mix = 10) : mix_(mix) {}
  std::string_view name() const override { return "diverse"; }
  a2sf::HookNeeds needs() const override { return {.keys_values = true}; }
  std::unique_ptr<a2sf::Hook> make(const a2sf::HookShape&) const override {
    return std::make_unique<DiverseHook>(mix_);
  }
  a2sf::Result<std::shared_ptr<const HookFactory>> with(std::string_view option,
                                                        std::string_view value) const override {
    if (option != "mix") return HookFactory::with(option, value);  // the error that there is no such option
    int mix = -1;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), mix);
    if (end != value.data() + value.size() || mix < 0 || mix > 100)
      return a2sf::fail(a2sf::ErrorKind::bad_input, "mix is from 0 to 100");
    return std::make_shared<Diverse>(mix);
  }
  std::string options() const override { return mix_ == 10 ? "" : ":mix=" + std::to_string(mix_); }

 private:
  int mix_;
};

template <class T>
T or_exit(a2sf::Result<T> result) {
  if (!result) {
    std::cerr << "hook: " << result.error().message << '\n';
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

double negative_log_probability(std::span<const float> logits, a2sf::Token token) {
  const float most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - most);
  return std::log(sum) + most - logits[static_cast<std::size_t>(token)];
}

int main(int argc, char** argv) {
  if (argc < 3) return std::cerr << "usage: hook MODEL.gguf TEXT_FILE [BUDGET]\n", 2;
  const auto model = or_exit(a2sf::Model::load(argv[1]));
  const auto tokenizer = or_exit(a2sf::Tokenizer::load(argv[1]));
  std::ifstream file(argv[2]);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  auto tokens = or_exit(tokenizer.encode(text, true, false));
  if (tokens.size() < 2) return std::cerr << "hook: " << argv[2] << " has no text\n", 1;
  tokens.resize(std::min<std::size_t>(tokens.size(), 400));

  // From here on "diverse" is a policy like those that come with the library, and takes their options too.
  a2sf::PolicyRow row;
  row.spec.name = "diverse";
  row.spec.score = a2sf::Hooked{std::make_shared<Diverse>(), {}};
  or_exit(a2sf::add_policy(row));

  const std::vector<a2sf::PolicyOption> common = {{"budget", argc > 3 ? argv[3] : "64"}, {"block", "16"}};
  for (const char* name : {"full", "local", "a2sf", "diverse", "diverse:mix=30"}) {
    const auto policy = or_exit(a2sf::parse_policy(name, common));
    auto session = or_exit(a2sf::Session::create(model, {policy}));
    double sum = 0;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      or_exit(session.feed({&tokens[i], 1}));
      sum += negative_log_probability(session.logits(), tokens[i + 1]);
    }
    std::printf("%-36s perplexity %8.2f   KV cache %6zu KiB\n", to_string(policy).c_str(),
                std::exp(sum / static_cast<double>(tokens.size() - 1)), session.kv_bytes() / 1024);
  }
}
