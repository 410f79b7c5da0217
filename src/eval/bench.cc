#include "eval/bench.h"

#include <a2sf/batch.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "model/model_parts.h"

namespace a2sf {
namespace {

using Clock = std::chrono::steady_clock;
using Tokens = std::span<const std::int32_t>;
using Sessions = std::vector<Session>;

constexpr std::size_t kWarmUpTokens = 16;

std::vector<std::int32_t> random_tokens(std::size_t count, int vocabulary) {
  std::mt19937 generator(kSpeedTestSeed);
  std::vector<std::int32_t> tokens(count);
  for (auto& token : tokens) token = static_cast<std::int32_t>(generator() % static_cast<std::uint32_t>(vocabulary));
  return tokens;
}

// A token sees itself and what is retained before it, which grows until it is what was retained at the end.
double mean_attended(const Session& session, const ModelInfo& info, const SpeedTest& test) {
  double retained = 0;
  for (int layer = 0; layer < info.layers; ++layer) {
    for (int head = 0; head < info.kv_heads; ++head)
      retained += static_cast<double>(session.retained(layer, head).size());
  }
  retained /= static_cast<double>(info.layers * info.kv_heads);
  double sum = 0;
  for (std::size_t t = test.depth; t < test.depth + test.tokens; ++t)
    sum += std::min(static_cast<double>(t + 1), retained + 1);
  return sum / static_cast<double>(test.tokens);
}

class SpeedRun {
 public:
  SpeedRun(const SpeedTest& test, const std::function<bool()>& keep_going) : test_(test), keep_going_(keep_going) {}

  Status read(Session& session, Tokens tokens) const {
    return session.feed(tokens, WantLogits::last, test_.policy.heeds_prompts(),
                        [this](std::size_t) { return !keep_going_ || keep_going_(); });
  }

  // Every session gets the same tokens.
  Status write(Sessions& sessions, Tokens tokens) const {
    Batch batch;
    std::vector<Feed> feeds(sessions.size());
    for (const std::int32_t& token : tokens) {
      if (keep_going_ && !keep_going_()) return fail(ErrorKind::cancelled, "interrupted");
      for (std::size_t i = 0; i < sessions.size(); ++i)
        feeds[i] = {.session = &sessions[i], .tokens = {&token, 1}, .keep_logits = true};
      if (auto started = batch.run(feeds); !started) return started;
      for (std::size_t i = 0; i < sessions.size(); ++i)
        if (!batch.status(i)) return batch.status(i);
    }
    return {};
  }

  Status advance(Sessions& sessions, Tokens tokens) const {
    return test_.decode ? write(sessions, tokens) : read(sessions.front(), tokens);
  }

  // The first tokens of a test touch memory and wake threads: they are not measured.
  Status warm_up(const Session& start, Tokens tokens) const {
    auto sessions = forks(start);
    if (!sessions) return tl::unexpected(sessions.error());
    return advance(*sessions, tokens.first(std::min(tokens.size(), kWarmUpTokens)));
  }

  // Returns a session as it is in the end.
  Result<Session> repeat(const Session& start, Tokens tokens, SpeedResult& result) const {
    auto sessions = forks(start);
    if (!sessions) return tl::unexpected(sessions.error());
    const auto begin = Clock::now();
    auto status = advance(*sessions, tokens);
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    result.tokens_per_s.push_back(static_cast<double>(tokens.size() * sessions->size()) / seconds);
    std::size_t kv_bytes = 0, cold_bytes = 0;
    for (const Session& session : *sessions) {
      kv_bytes += session.peak_kv_bytes();
      cold_bytes += session.cold_bytes();
    }
    result.kv_bytes = std::max(result.kv_bytes, kv_bytes);
    result.cold_bytes = std::max(result.cold_bytes, cold_bytes);
    if (!status) return tl::unexpected(status.error());
    return std::move(sessions->front());
  }

 private:
  Result<Sessions> forks(const Session& start) const {
    Sessions sessions;
    while (sessions.size() < (test_.decode ? test_.sequences : 1)) {
      auto fork = start.fork();
      if (!fork) return tl::unexpected(fork.error());
      sessions.push_back(std::move(*fork));
    }
    return sessions;
  }

  const SpeedTest& test_;
  const std::function<bool()>& keep_going_;
};

}  // namespace

double median_of_sorted(const std::vector<double>& values) {
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

Result<SpeedResult> measure_speed(const std::shared_ptr<const Model>& model, const SpeedTest& test,
                                  const std::function<bool()>& keep_going) {
  const auto tokens = random_tokens(test.depth + test.tokens, model->info().vocabulary);
  const auto length = static_cast<std::int64_t>(tokens.size());
  auto start = Session::create(
      model, {.policy = test.policy, .kv_type = test.kv_type, .sequence_tokens = length, .most_tokens = length});
  if (!start) return tl::unexpected(start.error());
  const SpeedRun run(test, keep_going);
  Status status;
  if (test.depth > 0) status = run.read(*start, Tokens(tokens).first(test.depth));
  const Tokens measured = Tokens(tokens).last(test.tokens);
  if (status) status = run.warm_up(*start, measured);
  SpeedResult result{{}, start->peak_kv_bytes(), start->cold_bytes(), 0, 0, 0};
  const Backend& backend = *model->parts().backend;
  const OperationSeconds before = backend.seconds();
  for (std::size_t i = 0; status && i < test.repeats; ++i) {
    const auto ended = run.repeat(*start, measured, result);
    if (!ended) return tl::unexpected(ended.error());
    if (i + 1 == test.repeats) result.attended = mean_attended(*ended, model->info(), test);
  }
  if (!status) return tl::unexpected(status.error());
  const OperationSeconds after = backend.seconds();
  const auto tokens_measured = static_cast<double>(test.repeats * test.tokens * (test.decode ? test.sequences : 1));
  result.matmul_seconds_per_token = (after.matmul - before.matmul) / tokens_measured;
  result.attend_seconds_per_token = (after.attend - before.attend) / tokens_measured;
  std::sort(result.tokens_per_s.begin(), result.tokens_per_s.end());
  return result;
}

}  // namespace a2sf
