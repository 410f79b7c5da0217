// One sequence through attention: on every instruction set of the CPU, and row by row through the reference.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numbers>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/kernels.h"
#include "kernels/host/host_store.h"
#include "kernels/reference/attend.h"
#include "support/random_head.h"

namespace a2sf::test {

inline HeadRule score_rule(std::int64_t budget, double alpha, std::int64_t sink, std::int64_t recent) {
  return {.budget = budget, .alpha = alpha, .sink = sink, .recent = recent, .mode = RetentionMode::score};
}
inline HeadRule raised(HeadRule rule) {
  rule.power = 1.5;
  return rule;
}
inline HeadRule weighted(HeadRule rule) {
  rule.value_weight = true;
  return rule;
}
inline HeadRule by_class(HeadRule rule) {
  rule.classes = true;
  return rule;
}
inline HeadRule from(double threshold, HeadRule rule) {
  rule.threshold = threshold;
  return rule;
}
inline HeadRule pinned(HeadRule rule, std::int64_t pin) {
  rule.pin = pin;
  return rule;
}
inline HeadRule oracle_rule(std::int64_t budget) { return {.budget = budget, .mode = RetentionMode::oracle}; }
inline const HeadRule kAll{};

struct Stream {
  explicit Stream(const HeadRule& rule, std::int64_t rows_of_block = 1) : Stream(std::vector{rule}, rows_of_block) {}
  explicit Stream(std::vector<HeadRule> rule_of_head, std::int64_t rows_of_block = 1)
      : rules(std::move(rule_of_head)), block(rows_of_block) {}

  std::vector<HeadRule> rules;  // [KV head]
  std::int64_t block;
  int group = 3, dim = 64, tokens = 200, window = 0;
  KvType type = KvType::f16;
  bool interleaved = true;   // rotation
  int prompt = 0;            // so many tokens are one, the others are decoded
  bool whole_prompt = true;  // block = prompt, where there is a prompt
  ColdTier cold = {};
  std::shared_ptr<const TokenClasses> classes = nullptr;  // of rules that have some

  std::vector<std::int32_t> ids() const {  // each token of another class than the one before
    std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
    for (std::size_t i = 0; i < ids.size() && classes != nullptr; ++i)
      ids[i] = static_cast<std::int32_t>(i % classes->class_of.size());
    return ids;
  }
  int kv_heads() const { return static_cast<int>(rules.size()); }
  int heads() const { return kv_heads() * group; }
  int q_columns() const { return heads() * dim; }
  int kv_columns() const { return kv_heads() * dim; }
  float scale() const { return .125F; }

  SlotPlan plan(const HeadRule& rule, bool in_prompt) const {
    if (rule.mode != RetentionMode::score) return window > 0 ? SlotPlan::ring(window + kWindowRows) : SlotPlan();
    if (!in_prompt) return SlotPlan::bounded(rule.budget + block);
    return window > 0 ? SlotPlan::bounded(window) : SlotPlan();
  }
  SequenceShape shape() const { return {1, heads(), kv_heads(), dim, type, scale(), {window}}; }
  ResolvedRetention resolved() const {
    ResolvedRetention resolved;
    const bool grows = prompt > 0 && whole_prompt;
    resolved.retention = {grows, block, kv_heads(), rules, nullptr, cold, classes};
    for (const HeadRule& rule : rules) {
      resolved.slots.push_back(plan(rule, grows));
      resolved.bounded_slots.push_back(plan(rule, false));
    }
    return resolved;
  }
  std::unique_ptr<HostStore> store() const {
    auto store = std::make_unique<HostStore>(host_memory(), shape(), resolved());
    store->record_evictions();
    return store;
  }
  // Quarter turns are exact: rounded to f16, keys must be those of the reference to the bit.
  std::vector<double> angles() const {
    std::vector<double> angles;
    for (int i = 0; i < dim / 2; ++i) angles.push_back(type == KvType::f16 ? i * std::numbers::pi / 2 : 1 / (1.0 + i));
    return angles;
  }
};

struct Input {
  std::vector<float> q, k, v;  // [tokens][columns]
};

inline Input random_input(const Stream& s, unsigned seed) {
  std::mt19937 random(seed);
  const auto q = static_cast<std::size_t>(s.tokens * s.q_columns()),
             kv = static_cast<std::size_t>(s.tokens * s.kv_columns());
  return {random_vector(random, q), random_vector(random, kv), random_vector(random, kv)};
}

struct Outcome {
  std::vector<float> out;                        // [tokens][columns]
  std::vector<std::vector<Eviction>> evictions;  // [KV head]
  std::unique_ptr<HostStore> store;
  Status status{};

  const HeadCache& head(int kv_head) const { return std::as_const(*store).head(0, kv_head); }
};

inline Outcome drained(Outcome outcome) {
  for (int h = 0; h < outcome.store->shape().kv_heads; ++h)
    outcome.evictions.push_back(outcome.store->drain_evictions(0, h));
  return outcome;
}

// How a stream is fed: in chunks, on so many threads.
struct Feeding {
  int threads, chunk;
  int decoded = 0;  // of the last tokens, one by one
};

// Attention of one instruction set.
class CpuAttention {
 public:
  CpuAttention(const Stream& stream, cpu::Isa isa, int threads)
      : s_(stream),
        pool_(threads),
        attention_(pool_, cpu::kernels_of(isa).rows, failures_),
        angles_(stream.angles()),
        ids_(stream.ids()) {}

  // `in` are the rows [first, first + rows) of the whole input.
  Status feed(HostStore& store, Input& in, int first, int rows, std::vector<float>& out) {
    const bool in_prompt = first < s_.prompt, prompt_ends = in_prompt && first + rows == s_.prompt;
    EXPECT_TRUE(store.make_room(rows, in_prompt));
    const Span span{&store, 0, 0, rows, first, in_prompt, prompt_ends, ids_};
    const Step step{std::span(ids_).first(static_cast<std::size_t>(rows)), std::span(&span, 1)};
    const RopeTable rope{angles_, 1, s_.interleaved};
    failures_.begin(step);
    attention_.begin(step, {std::span(&rope, 1), s_.heads(), s_.q_columns()});
    const int q = s_.q_columns(), kv = s_.kv_columns();
    attention_.attend({0,
                       s_.heads(),
                       s_.kv_heads(),
                       s_.dim,
                       s_.window,
                       s_.scale(),
                       0,
                       {in.q.data() + first * q, q},
                       {in.k.data() + first * kv, kv},
                       {in.v.data() + first * kv, kv},
                       {out.data() + first * q, q}});
    Status status;
    failures_.end(std::span(&status, 1));
    return status && prompt_ends ? store.end_prompt() : status;
  }

 private:
  const Stream& s_;
  ThreadPool pool_;
  SpanFailures failures_;
  cpu::Attention attention_;
  std::vector<double> angles_;
  std::vector<std::int32_t> ids_;
};

inline Outcome run_cpu(const Stream& s, Input input, cpu::Isa isa, const Feeding& feeding) {
  CpuAttention attention(s, isa, feeding.threads);
  Outcome outcome{std::vector<float>(input.q.size()), {}, s.store()};
  for (int first = 0, rows = 0; first < s.tokens && outcome.status; first += rows) {
    const int in_chunks = s.prompt > first ? s.prompt : s.tokens - feeding.decoded;
    rows = std::clamp(in_chunks - first, 1, feeding.chunk);
    outcome.status = attention.feed(*outcome.store, input, first, rows, outcome.out);
  }
  return drained(std::move(outcome));
}

// One row of one KV head. `follow`: what another implementation evicted, taken where it is a near tie.
inline bool attend_by_reference(const Stream& s, HostStore& store, Input& input, int row, int kv_head,
                                const std::vector<std::int32_t>& follow, std::vector<float>& out) {
  const auto dim = static_cast<std::size_t>(s.dim), q_size = dim * static_cast<std::size_t>(s.group);
  const auto at = static_cast<std::size_t>(row * s.kv_heads() + kv_head);
  const std::span q(input.q.data() + at * q_size, q_size), k(input.k.data() + at * dim, dim),
      v(input.v.data() + at * dim, dim);
  const auto angles = s.angles();
  const RopeTable rope{angles, 1, s.interleaved};
  for (std::size_t g = 0; g < static_cast<std::size_t>(s.group); ++g)
    reference::rotate(q.subspan(g * dim, dim), rope, row);
  reference::rotate(k, rope, row);
  const bool prompt_ends = row == s.prompt - 1;
  const bool in_prompt = s.whole_prompt && row < s.prompt;
  std::optional<reference::Recall> cold;
  if (store.has_cold_tier(0) && (prompt_ends || (!in_prompt && row % recall_every(s.block) == 0))) {
    cold = {&store.cold(0, kv_head), s.cold.recall,
            [&](const reference::Victim& victim) { store.record(0, kv_head, victim.slot, row, victim.probability); }};
  }
  return reference::attend(
      {&store.head(0, kv_head), &s.rules[static_cast<std::size_t>(kv_head)], s.block, row, s.group, s.dim, s.window,
       s.scale(), !in_prompt || prompt_ends, prompt_ends && s.whole_prompt, q, k, v,
       std::span(out).subspan(at * q_size, q_size), &follow, cold,
       s.classes == nullptr ? nullptr : &s.classes->of(s.ids()[static_cast<std::size_t>(row)])},
      [&](const reference::Victim& victim) { store.release(0, kv_head, victim.slot, row, victim.probability); });
}

inline Outcome run_reference(const Stream& s, Input input, const std::vector<std::vector<Eviction>>& other = {}) {
  Outcome outcome{std::vector<float>(input.q.size()), {}, s.store()};
  for (int row = 0; row < s.tokens && outcome.status; ++row) {
    EXPECT_TRUE(outcome.store->make_room(1, row < s.prompt));
    for (int h = 0; h < s.kv_heads() && outcome.status; ++h) {
      std::vector<std::int32_t> follow;
      for (const Eviction& e : other.empty() ? std::vector<Eviction>() : other[static_cast<std::size_t>(h)]) {
        if (e.step == row) follow.push_back(e.position);
      }
      if (!attend_by_reference(s, *outcome.store, input, row, h, follow, outcome.out))
        outcome.status = fail(ErrorKind::bad_input, std::to_string(row));
    }
    if (outcome.status && row == s.prompt - 1) outcome.status = outcome.store->end_prompt();
  }
  return drained(std::move(outcome));
}

// Victims of one step are a set: with block > 1 their order may differ at near ties.
inline std::vector<Eviction> in_order(std::vector<Eviction> evictions) {
  std::sort(evictions.begin(), evictions.end(), [](const Eviction& a, const Eviction& b) {
    return std::pair(a.step, a.position) < std::pair(b.step, b.position);
  });
  return evictions;
}

// The same victims at the same steps, the same scores of who stayed, to the byte.
inline void expect_same_head(const Outcome& a, int head_of_a, const Outcome& b, int head_of_b) {
  SCOPED_TRACE("KV head " + std::to_string(head_of_a));
  const auto gone = in_order(a.evictions[static_cast<std::size_t>(head_of_a)]),
             also_gone = in_order(b.evictions[static_cast<std::size_t>(head_of_b)]);
  ASSERT_EQ(gone.size(), also_gone.size());
  for (std::size_t i = 0; i < gone.size(); ++i) {
    ASSERT_EQ(std::tuple(gone[i].step, gone[i].position, gone[i].score, gone[i].probability),
              std::tuple(also_gone[i].step, also_gone[i].position, also_gone[i].score, also_gone[i].probability));
  }
  const auto kept = a.store->snapshot(0, head_of_a), also_kept = b.store->snapshot(0, head_of_b);
  ASSERT_EQ(kept.size(), also_kept.size());
  for (std::size_t i = 0; i < kept.size(); ++i)
    ASSERT_EQ(std::pair(kept[i].position, kept[i].score), std::pair(also_kept[i].position, also_kept[i].score));
}

inline void expect_same_bytes(const Outcome& a, const Outcome& b) {
  ASSERT_TRUE(a.status && b.status);
  EXPECT_EQ(a.out, b.out);
  for (int h = 0; h < a.store->shape().kv_heads; ++h) expect_same_head(a, h, b, h);
}

}  // namespace a2sf::test
