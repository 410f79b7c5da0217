// Whether a bounded cache makes a decoded token cost the same at any depth: two sessions, one deep and one shallow,
// take turns in short bursts, and the times of each pair are compared.
//   a2sf_depth_pair MODEL.gguf [PAIRS [DEEP [BUDGET]]]
#include <cstdio>
#include <string>

#include "program.h"

namespace a2sf {
namespace {

constexpr std::size_t kShallow = 512, kBurst = 32;

class DepthPair {
 public:
  DepthPair(const std::string& model, std::size_t deep, const std::string& budget)
      : model_(or_exit(Model::load(model))),
        options_{.policy = or_exit(parse_policy("a2sf:budget=" + budget))},
        deep_(at_depth(deep)),
        shallow_(at_depth(kShallow)) {}

  void run(std::size_t pairs) {
    std::vector<double> deep, shallow, ratios;
    for (std::size_t i = 0; i < pairs; ++i) {
      const std::vector<Token> tokens = random_tokens(kBurst, model_->info().vocabulary, random_);
      // Each goes first half of the time.
      if (i % 2 == 0) shallow.push_back(burst(shallow_, tokens));
      deep.push_back(burst(deep_, tokens));
      if (i % 2 == 1) shallow.push_back(burst(shallow_, tokens));
      ratios.push_back(deep.back() / shallow.back());
    }
    const auto [least, most] = std::minmax_element(ratios.begin(), ratios.end());
    fmt::print(
        "{} pairs of {} tokens: {:.3f} ms/token deep, {:.3f} ms/token at depth {}; deep / shallow {:.4f} ({:.3f} to "
        "{:.3f})\n",
        pairs, kBurst, median(deep), median(shallow), kShallow, median(ratios), *least, *most);
  }

 private:
  Session at_depth(std::size_t tokens) {
    Session session = or_exit(Session::create(model_, options_));
    or_exit(session.feed(random_tokens(tokens, model_->info().vocabulary, random_)));
    return session;
  }
  // The sessions themselves stay where they are. The first token of a copy touches its memory: it does not count.
  static double burst(const Session& start, const std::vector<Token>& tokens) {
    Session session = or_exit(start.fork());
    or_exit(session.feed({tokens.data(), 1}));
    return decode(session, tokens);
  }

  std::mt19937 random_;
  std::shared_ptr<const Model> model_;
  SessionOptions options_;
  Session deep_, shallow_;
};

}  // namespace
}  // namespace a2sf

int main(int argc, char** argv) {
  const long pairs = argc > 2 ? std::atol(argv[2]) : 20, deep = argc > 3 ? std::atol(argv[3]) : 16384;
  if (argc < 2 || argc > 5 || pairs < 1 || deep < 1) {
    fmt::print(stderr, "usage: a2sf_depth_pair MODEL.gguf [PAIRS [DEEP [BUDGET]]]\n");
    return 2;
  }
  a2sf::DepthPair(argv[1], static_cast<std::size_t>(deep), argc > 4 ? argv[4] : "256")
      .run(static_cast<std::size_t>(pairs));
}
