// Whether speed and memory stay what they were: decodes many tokens into one bounded cache.
//   a2sf_long_run MODEL.gguf [TOKENS [BUDGET]]
// A hundred lines, then the last tenth beside the first. Machines drift over minutes, so speed is compared in pairs: in
// the last tenth every token of the long session is followed by one of a fork that was taken in the first tenth.
#include <a2sf/a2sf.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace a2sf;

template <class T>
T or_exit(Result<T> result) {
  if (!result) {
    fmt::print(stderr, "a2sf_long_run: {}\n", result.error().message);
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

double rss_mebibytes() {
  std::ifstream statm("/proc/self/statm");
  double total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
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
      times.push_back(decode(session_));
      if (i >= tokens - tenth) ratios.push_back(times.back() / decode(*young));
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
  double decode(Session& session) {
    const auto token = static_cast<Token>(random_() % static_cast<unsigned>(model_->info().vocabulary));
    const auto begin = std::chrono::steady_clock::now();
    or_exit(session.feed({&token, 1}));
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  }

  std::mt19937 random_;
  std::shared_ptr<const Model> model_;
  Session session_;
};

}  // namespace

int main(int argc, char** argv) {
  const long tokens = argc > 2 ? std::atol(argv[2]) : 100'000;
  if (argc < 2 || argc > 4 || tokens < 1000) {
    fmt::print(stderr, "usage: a2sf_long_run MODEL.gguf [TOKENS, at least 1000 [BUDGET]]\n");
    return 2;
  }
  LongRun(argv[1], argc > 3 ? argv[3] : "256").run(static_cast<std::size_t>(tokens));
}
