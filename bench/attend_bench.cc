// Attention over a retained cache: what a row costs, by shape, budget and policy.
//   build/release/bench/a2sf_kernel_bench --benchmark_filter=TokenByToken
#include <benchmark/benchmark.h>

#include <memory>
#include <random>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/kernels.h"
#include "kernels/host/host_store.h"

namespace a2sf {
namespace {

constexpr int kStepRows = 64;  // as in Session::feed
constexpr float kScale = .1F;

struct Shape {
  int layers, kv_heads, group, dim;
  KvType type;
};

std::vector<float> random_vector(std::size_t size) {
  static std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(size);
  for (float& value : x) value = normal(random);
  return x;
}

// One sequence whose heads are bounded by `budget`, or grow if it is 0.
class Sequence {
 public:
  Sequence(const Shape& shape, std::int64_t budget, int threads)
      : shape_(shape),
        pool_(threads),
        attention_(pool_, cpu::kernels_of(cpu::supported_isas().front()).rows, failures_),
        angles_(static_cast<std::size_t>(shape.dim / 2), .01),
        ids_(kStepRows),
        q_(random_vector(static_cast<std::size_t>(kStepRows * shape.kv_heads * shape.group * shape.dim))),
        k_(random_vector(static_cast<std::size_t>(kStepRows * shape.kv_heads * shape.dim))),
        v_(random_vector(k_.size())),
        out_(q_.size()) {
    const auto heads = static_cast<std::size_t>(shape.layers * shape.kv_heads);
    const SlotPlan plan = budget == 0 ? SlotPlan() : SlotPlan::bounded(budget + 1);
    const HeadRule rule =
        budget == 0 ? HeadRule{}
                    : HeadRule{.budget = budget, .alpha = .99, .recent = budget / 2, .mode = RetentionMode::score};
    const SlotPlans plans(heads, plan);
    store_ = std::make_unique<HostStore>(
        host_memory(),
        SequenceShape{shape.layers, shape.kv_heads * shape.group, shape.kv_heads, shape.dim, shape.type, kScale,
                      std::vector<int>(static_cast<std::size_t>(shape.layers), 0)},
        ResolvedRetention{{false, 1, shape.kv_heads, std::vector<HeadRule>(heads, rule), nullptr}, plans, plans});
  }

  // Tokens that are simply there.
  void fill(std::int64_t tokens) {
    if (!store_->make_room(tokens, false)) return;
    const std::span key(k_), value(v_);
    const auto dim = static_cast<std::size_t>(shape_.dim);
    for (int i = 0; i < shape_.layers * shape_.kv_heads; ++i) {
      for (std::int64_t t = 0; t < tokens; ++t) {
        const auto at = static_cast<std::size_t>(t % kStepRows) * dim;
        store_->head(i / shape_.kv_heads, i % shape_.kv_heads)
            .insert(static_cast<std::int32_t>(t), key.subspan(at, dim), value.subspan(at, dim));
      }
    }
    position_ = tokens;
  }
  void feed(std::int64_t tokens) {
    for (; tokens > 0; tokens -= kStepRows) step(static_cast<int>(std::min<std::int64_t>(tokens, kStepRows)));
  }
  void step(int rows) {
    begin(rows);
    attend(rows);
  }
  void begin(int rows) {
    if (!store_->make_room(rows, false)) return;
    span_ = {store_.get(), 0, 0, rows, position_, false, false, {}};
    step_ = {std::span(ids_).first(static_cast<std::size_t>(rows)), {&span_, 1}};
    const RopeTable rope{angles_, 1, true};
    failures_.begin(step_);
    attention_.begin(step_, {std::span(&rope, 1), shape_.kv_heads * shape_.group});
  }
  void attend(int rows) {
    const int kv = shape_.kv_heads * shape_.dim, q = kv * shape_.group;
    for (int layer = 0; layer < shape_.layers; ++layer) {
      attention_.attend({layer,
                         shape_.kv_heads * shape_.group,
                         shape_.kv_heads,
                         shape_.dim,
                         0,
                         kScale,
                         0,
                         {q_.data(), q},
                         {k_.data(), kv},
                         {v_.data(), kv},
                         {out_.data(), q}});
    }
    position_ += rows;
  }
  std::int64_t position() const { return position_; }
  // Takes the newest token back, so that a growing cache keeps its size.
  void take_back() {
    --position_;
    for (int i = 0; i < shape_.layers * shape_.kv_heads; ++i) {
      HeadCache& head = store_->head(i / shape_.kv_heads, i % shape_.kv_heads);
      for (int slot = 0; slot < head.used(); ++slot) {
        if (head.position(slot) == position_) head.release(slot);
      }
    }
  }

 private:
  Shape shape_;
  ThreadPool pool_;
  SpanFailures failures_;
  cpu::Attention attention_;
  std::unique_ptr<HostStore> store_;
  std::vector<double> angles_;
  std::vector<std::int32_t> ids_;
  std::vector<float> q_, k_, v_, out_;
  Span span_{};
  Step step_;
  std::int64_t position_ = 0;
};

KvType type_of(std::int64_t bytes) { return bytes == 2 ? KvType::f16 : KvType::f32; }

// A prompt with block = 1, at its budget: attend, score and evict after every row.
void TokenByToken(benchmark::State& state) {
  const Shape shape{1, static_cast<int>(state.range(4)), static_cast<int>(state.range(1)),
                    static_cast<int>(state.range(0)), type_of(state.range(3))};
  Sequence sequence(shape, state.range(2), static_cast<int>(state.range(5)));
  sequence.feed(state.range(2) + kStepRows);
  for (auto _ : state) {
    state.PauseTiming();
    sequence.begin(kStepRows);
    state.ResumeTiming();
    sequence.attend(kStepRows);
  }
  state.counters["us_per_row"] = benchmark::Counter(static_cast<double>(kStepRows * state.iterations()) / 1e6,
                                                    benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(TokenByToken)
    ->ArgNames({"dim", "group", "budget", "bytes", "kv_heads", "threads"})
    ->ArgsProduct({{64}, {3}, {256, 1024, 4096}, {2, 4}, {1}, {1}})
    ->Args({128, 4, 256, 2, 1, 1})
    ->Args({128, 4, 1024, 2, 1, 1})
    ->Args({256, 4, 256, 2, 1, 1})
    ->Args({80, 1, 256, 2, 1, 1})
    ->Args({96, 8, 256, 2, 1, 1})
    ->Args({128, 16, 256, 2, 1, 1})
    ->Args({64, 3, 256, 2, 3, 2})
    ->Args({64, 3, 256, 2, 4, 2})
    ->UseRealTime();

// A prompt with full attention, from its first token to its last.
void FullPrompt(benchmark::State& state) {
  const Shape shape{1, static_cast<int>(state.range(4)), static_cast<int>(state.range(1)),
                    static_cast<int>(state.range(0)), type_of(state.range(3))};
  for (auto _ : state) {
    Sequence sequence(shape, 0, static_cast<int>(state.range(5)));
    sequence.feed(state.range(2));
  }
  const auto tokens = static_cast<double>(state.range(2));
  state.counters["multiply_adds"] = benchmark::Counter(
      static_cast<double>(state.iterations() * shape.kv_heads * shape.group * shape.dim) * tokens * tokens,
      benchmark::Counter::kIsRate);
}
BENCHMARK(FullPrompt)
    ->ArgNames({"dim", "group", "tokens", "bytes", "kv_heads", "threads"})
    ->Args({64, 3, 2048, 2, 1, 1})
    ->Args({64, 3, 8192, 2, 1, 1})
    ->Args({128, 4, 2048, 2, 1, 1})
    ->Args({128, 4, 2048, 4, 1, 1})
    ->Args({256, 4, 2048, 2, 1, 1})
    ->Args({128, 1, 2048, 2, 1, 1})
    ->Args({64, 3, 2048, 2, 3, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// One decoded token after another through many layers, so that the caches of the processor hold few of them, or none.
// With `scored`, at its budget: score and eviction included; else attention alone over as many slots.
void Decode(benchmark::State& state) {
  const Shape shape{static_cast<int>(state.range(7)), static_cast<int>(state.range(4)),
                    static_cast<int>(state.range(1)), static_cast<int>(state.range(0)), type_of(state.range(3))};
  const bool scored = state.range(6) != 0;
  Sequence sequence(shape, scored ? state.range(2) : 0, static_cast<int>(state.range(5)));
  sequence.fill(state.range(2));
  for (auto _ : state) {
    state.PauseTiming();
    if (!scored && sequence.position() > state.range(2)) sequence.take_back();
    sequence.begin(1);
    state.ResumeTiming();
    sequence.attend(1);
  }
  const double bytes = static_cast<double>(shape.layers * shape.kv_heads) * static_cast<double>(state.range(2)) *
                       (2.0 * shape.dim * static_cast<double>(state.range(3)) + (scored ? 8 : 0));
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes) * state.iterations());
}
BENCHMARK(Decode)
    ->ArgNames({"dim", "group", "slots", "bytes", "kv_heads", "threads", "scored", "layers"})
    ->ArgsProduct({{64}, {3}, {256, 4096}, {2}, {3}, {1, 2}, {0, 1}, {30}})
    ->Args({64, 3, 256, 2, 3, 2, 1, 600})
    ->ArgsProduct({{128}, {4}, {256, 2048}, {2}, {2}, {2}, {0, 1}, {30}})
    ->UseRealTime();

}  // namespace
}  // namespace a2sf
