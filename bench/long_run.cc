// Whether speed and memory stay what they were: decodes many tokens into one bounded cache.
//   a2sf_long_run MODEL.gguf [TOKENS [BUDGET]]
// A hundred lines, then the last tenth beside the first. Machines drift over minutes, so speed is compared in pairs: in
// the last tenth every token of the long session is followed by one of a fork that was taken in the first tenth.
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <optional>
#include <string>

#include "program.h"

namespace a2sf {
namespace {

double rss_mebibytes() {
  std::ifstream statm("/proc/self/statm");
  double total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

class LongRun {
 public:
  LongRun(const std::string& model, const std::string& budget)
      : model_(or_exit(Model::load(model))),
        session_(or_exit(Session::create(model_, {.policy = or_exit(parse_policy("a2sf:budget=" + budget))}))) {}

  void run(std::size_t tokens) {
    const std::size_t tenth = tokens / 10, part = tokens / 100;
    std::vector<double> times, ratios, first_rss, last_rss;
    std::optional<Session> young;
    for (std::size_t i = 0; i < tokens; ++i) {
      if (i == tenth / 2) young.emplace(or_exit(session_.fork()));
      times.push_back(decode_one(session_));
      if (i >= tokens - tenth) ratios.push_back(times.back() / decode_one(*young));
      if (times.size() < part) continue;
      const double rss = rss_mebibytes();
      if (i < tenth && i > tenth / 2) first_rss.push_back(rss);
      if (i >= tokens - tenth) last_rss.push_back(rss);
      fmt::print("{:>9} tokens {:8.3f} ms/token {:9.2f} MiB resident {:8.2f} MiB KV cache\n", i + 1, median(times), rss,
                 static_cast<double>(session_.kv_bytes()) / (1 << 20));
      std::fflush(stdout);
      times.clear();
    }
    fmt::print("last tenth / first tenth: resident memory {:.4f}, time per token {:.4f}\n",
               median(last_rss) / median(first_rss), median(ratios));
  }

 private:
  // Milliseconds for one random token.
  double decode_one(Session& session) { return decode(session, random_tokens(1, model_->info().vocabulary, random_)); }

  std::mt19937 random_;
  std::shared_ptr<const Model> model_;
  Session session_;
};

}  // namespace
}  // namespace a2sf

int main(int argc, char** argv) {
  const long tokens = argc > 2 ? std::atol(argv[2]) : 100'000;
  if (argc < 2 || argc > 4 || tokens < 1000) {
    fmt::print(stderr, "usage: a2sf_long_run MODEL.gguf [TOKENS, at least 1000 [BUDGET]]\n");
    return 2;
  }
  a2sf::LongRun(argv[1], argc > 3 ? argv[3] : "256").run(static_cast<std::size_t>(tokens));
}
