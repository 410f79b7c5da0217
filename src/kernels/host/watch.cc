#include "kernels/host/watch.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace a2sf {

static_assert(HookHead::kRun == kChunk);

namespace {

constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

// How many tokens more until a hook is due: in the head that is nearest to its capacity and `block` more, and in all
// heads that the hook bounds together, to their budgets and `block` more each.
struct RoomUntilHook {
  std::int64_t head = kNoLimit, layer = kNoLimit, heads = 0;
};

RoomUntilHook room_until_hook(const HostStore& store, int layer, std::int64_t block) {
  const Retention& retention = store.retention();
  RoomUntilHook room;
  for (int h = 0; h < store.shape().kv_heads; ++h) {
    const HeadRule& rule = retention.rule(layer, h);
    if (rule.mode != RetentionMode::hook) continue;
    const std::int64_t held = store.head(layer, h).occupied();
    room.head = std::min(room.head, retention.capacity(rule) + block - held);
    room.layer = (room.heads == 0 ? 0 : room.layer) + rule.budget + block - held;
    ++room.heads;
  }
  return room;
}

}  // namespace

class LayerWatch::Head final : public HookHead {
 public:
  Head(LayerWatch& watch, int kv_head)
      : watch_(watch), kv_head_(kv_head), head_(watch.store_.head(watch.row_.layer, kv_head)) {
    const SequenceShape& shape = watch.store_.shape();
    const Retention& retention = watch.store_.retention();
    const HeadRule& rule = retention.rule(watch.row_.layer, kv_head);
    runs_.reserve(head_.chunks().size());
    for (const Chunk& chunk : head_.chunks())
      runs_.push_back({chunk.positions, chunk.scores, chunk.numbers, chunk.slots});
    slots_ = head_.used();
    group_ = shape.heads / shape.kv_heads;
    head_dim_ = shape.head_dim;
    scale_ = shape.scale;
    held_ = head_.occupied();
    budget_ = rule.mode == RetentionMode::all ? kKeepAll : rule.budget;
    capacity_ = rule.mode == RetentionMode::all ? kKeepAll : retention.capacity(rule);
    if (!scores(rule)) return;  // nothing of it may go
    const Evictable evictable(rule, watch.row_.position);
    first_ = evictable.first;
    last_ = evictable.last;
  }

  std::span<const float> query(int back, int query_head) const override {
    if (!has_row(back)) return {};
    return {query_of(back, query_head), static_cast<std::size_t>(head_dim_)};
  }

  std::span<const float> probabilities(int back, int query_head) const override {
    if (!has_row(back)) return {};
    const auto slots = static_cast<std::size_t>(slots_);
    if (computed_ != back) {
      std::vector<const float*> queries;
      for (int g = 0; g < group_; ++g) queries.push_back(query_of(back, g));
      probabilities_.resize(static_cast<std::size_t>(group_) * slots);
      const SequenceShape& shape = watch_.store_.shape();
      watch_.probabilities_.compute(head_,
                                    {queries, head_dim_, watch_.row_.position - back, shape.scale,
                                     shape.windows[static_cast<std::size_t>(watch_.row_.layer)]},
                                    probabilities_);
      computed_ = back;
    }
    return std::span<const float>(probabilities_).subspan(static_cast<std::size_t>(query_head) * slots, slots);
  }

  void read_key(int slot, std::span<float> key) const override {
    if (may_read(slot, key.size())) head_.read_key(slot, key);
  }
  void read_value(int slot, std::span<float> value) const override {
    if (may_read(slot, value.size())) head_.read_value(slot, value);
  }
  void write_key(int slot, std::span<const float> key) override {
    if (!may_write(slot, key.size())) return;
    head_.write_key(slot, key);
    computed_ = -1;
  }
  void write_value(int slot, std::span<const float> value) override {
    if (may_write(slot, value.size())) head_.write_value(slot, value);
  }

  void evict(int slot) override {
    if (!allowed(watch_.may_evict_, "evicted a token where it may not") || !exists(slot)) return;
    if (!allowed(may_go(slot), "named a token that must stay", slot)) return;
    const bool was_there = std::erase(restored_, slot) == 0;  // when the row attended
    watch_.store_.release(watch_.row_.layer, kv_head_, slot, watch_.row_.position,
                          was_there ? watch_.probabilities_.of_last_row(kv_head_, slot) : 0);
    --held_;
    ++evicted_;
    computed_ = -1;
  }

  int restore(std::int32_t position, std::span<const float> key, std::span<const float> value) override {
    const auto dim = static_cast<std::size_t>(head_dim_);
    if (!allowed(watch_.may_evict_, "brought a token back where it may not") ||
        !allowed(key.size() == dim && value.size() == dim, "gave a key or value of the wrong size") ||
        !allowed(evicted_ > 0, "brought back more tokens than it evicted") ||
        !allowed(may_hold(position), "brought back a token that cannot be there"))
      return -1;
    restored_.reserve(restored_.size() + 1);
    const int slot = head_.insert(position, key, value);
    restored_.push_back(slot);
    ++held_;
    --evicted_;
    computed_ = -1;
    return slot;
  }

 private:
  bool allowed(bool condition, const char* what, int slot = -1) const {
    if (condition || !watch_.wrong_.empty()) return condition;
    const std::string where = slot < 0                               ? std::string()
                              : slot < slots_ && position(slot) >= 0 ? fmt::format(", position {}", position(slot))
                                                                     : fmt::format(", slot {}", slot);
    watch_.wrong_ = fmt::format("{}: layer {}, KV head {}{}", what, watch_.row_.layer, kv_head_, where);
    return false;
  }
  // Whether a token of this position can be held, and is not.
  bool may_hold(std::int32_t position) const {
    const int window = watch_.store_.shape().windows[static_cast<std::size_t>(watch_.row_.layer)];
    if (position < 0 || position > watch_.row_.position) return false;
    if (window > 0 && position <= watch_.row_.position - window) return false;
    for (int slot = 0; slot < slots_; ++slot) {
      if (this->position(slot) == position) return false;
    }
    return true;
  }
  bool exists(int slot) const {
    return allowed(slot >= 0 && slot < slots_ && position(slot) >= 0, "named a token that is not there",
                   std::max(slot, 0));
  }
  bool may_read(int slot, std::size_t size) const {
    return allowed(watch_.needs_->keys_values, "did not say that it wants to see keys and values") && exists(slot) &&
           allowed(size == static_cast<std::size_t>(head_dim_), "gave a key or value of the wrong size", slot);
  }
  bool may_write(int slot, std::size_t size) const {
    return allowed(watch_.may_change_, "changed a token where it may only look on") && may_read(slot, size);
  }
  bool has_number(int index) const override {
    return allowed(index >= 0 && index < watch_.numbers_, "did not say that it wants so many numbers");
  }
  bool has_row(int back) const {
    return allowed(back >= 0 && back < watch_.needs_->last_rows, "did not say that it wants to see so many rows") &&
           watch_.store_.queries().has(watch_.row_.layer, watch_.row_.position - back);
  }
  const float* query_of(int back, int query_head) const {
    return watch_.store_.queries().query(watch_.row_.layer, watch_.row_.position - back,
                                         kv_head_ * group_ + query_head);
  }

  LayerWatch& watch_;
  int kv_head_;
  HeadCache& head_;
  std::int64_t evicted_ = 0;                  // in this call, less those that came back
  std::vector<int> restored_;                 // slots of tokens that came back in this call
  mutable std::vector<float> probabilities_;  // [query head of the group][slot], of the row `computed_`
  mutable int computed_ = -1;
};

LayerWatch::LayerWatch(HostStore& store, const WatchedRow& row, ProbabilitySource& probabilities)
    : store_(store), row_(row), probabilities_(probabilities) {
  row_.token_ids = row.token_ids.first(static_cast<std::size_t>(row.position) + 1);
  for (int h = 0; h < store.shape().kv_heads; ++h) {
    heads_.push_back(std::make_unique<Head>(*this, h));
    views_.push_back(heads_.back().get());
  }
}

LayerWatch::~LayerWatch() = default;

Status LayerWatch::after_row(bool in_prompt, bool prompt_ends) {
  prompt_ends_ = in_prompt && prompt_ends;
  if (auto observed = observe(); !observed || store_.hook() == nullptr) return observed;
  if (in_prompt && !prompt_ends_) return {};
  return is_over_budget(prompt_ends_ ? 0 : store_.retention().block) ? evict() : Status();
}

template <class Call>
void LayerWatch::call_hook(Call call) {
  needs_ = &store_.hook_needs();
  numbers_ = needs_->numbers;
  may_change_ = true;
  call(*store_.hook());
  may_change_ = false;
}

Status LayerWatch::observe() {
  HookLayer layer = this->layer();
  if (store_.observer() != nullptr && store_.observer_needs().every_row) {
    needs_ = &store_.observer_needs();
    numbers_ = 0;
    store_.observer()->observe(layer);
    if (!wrong_.empty()) return fail(ErrorKind::bad_input, "an observer " + wrong_);
  }
  if (store_.hook() != nullptr && store_.hook_needs().every_row) {
    call_hook([&](Hook& hook) { hook.observe(layer); });
  }
  return hook_error();
}

Status LayerWatch::hook_error() const {
  if (wrong_.empty()) return {};
  return fail(ErrorKind::bad_input, fmt::format("hook '{}' {}", store_.retention().hook->name(), wrong_));
}

bool LayerWatch::is_over_budget(std::int64_t block) const {
  const RoomUntilHook room = room_until_hook(store_, row_.layer, block);
  const std::int64_t least = std::min(room.head, room.layer);
  return block > 0 ? least <= 0 : least < 0;
}

Status LayerWatch::evict() {
  const HookFactory& factory = *store_.retention().hook;
  HookLayer layer = this->layer();
  may_evict_ = true;
  call_hook([&](Hook& hook) { hook.evict(layer); });
  may_evict_ = false;
  if (!wrong_.empty()) return hook_error();
  for (int h = 0; h < layer.kv_heads(); ++h) {
    const HookHead& head = layer.head(h);
    if (store_.retention().rule(row_.layer, h).mode != RetentionMode::hook || head.held() <= head.capacity()) continue;
    return fail(ErrorKind::bad_input,
                fmt::format("hook '{}' left {} tokens in layer {}, KV head {}: more than its capacity of {}",
                            factory.name(), head.held(), row_.layer, h, head.capacity()));
  }
  return {};
}

std::int64_t rows_until_hook(const HostStore& store, int layer) {
  const RoomUntilHook room = room_until_hook(store, layer, store.retention().block);
  const std::int64_t rows = room.heads == 0 ? room.layer : (room.layer + room.heads - 1) / room.heads;
  return std::max<std::int64_t>(1, std::min(room.head, rows));
}

void show_outputs(ShadowObserver& observer, const HostAttendArgs& args, HostRows shadow, const Span& span) {
  const auto view = [](const HostRows& rows, int row) {
    return std::span<const float>(rows.row(row), static_cast<std::size_t>(rows.columns));
  };
  for (int i = 0; i < span.rows; ++i) {
    const int row = span.first_row + i;
    observer.outputs(
        {args.layer, span.first_position + i, view(args.residual, row), view(args.out, row), view(shadow, row)});
  }
}

void tell_who_left(HostStore& store, int layer) {
  for (int h = 0; h < store.shape().kv_heads; ++h) {
    std::vector<Eviction>& departed = store.departed(layer, h);
    for (const Eviction& eviction : departed) {
      if (store.hook() != nullptr) store.hook()->left(layer, h, eviction);
      if (store.observer() != nullptr) store.observer()->left(layer, h, eviction);
    }
    departed.clear();
  }
}

void PlainProbabilities::compute(HeadCache& head, const GroupQueries& row, std::span<float> out) {
  const int slots = head.used();
  std::vector<float> key(static_cast<std::size_t>(row.head_dim));
  std::vector<double> x(static_cast<std::size_t>(slots));
  const auto sees = [&](int slot) {
    const std::int32_t at = head.position(slot);
    return at >= 0 && at <= row.position && (row.window == 0 || at > row.position - row.window);
  };
  for (std::size_t g = 0; g < row.queries.size(); ++g) {
    double largest = -INFINITY, sum = 0;
    for (int slot = 0; slot < slots; ++slot) {
      if (!sees(slot)) continue;
      head.read_key(slot, key);
      double dot = 0;
      for (std::size_t i = 0; i < key.size(); ++i) dot += static_cast<double>(row.queries[g][i]) * key[i];
      x[static_cast<std::size_t>(slot)] = dot * row.scale;
      largest = std::max(largest, dot * row.scale);
    }
    for (int slot = 0; slot < slots; ++slot) {
      double& p = x[static_cast<std::size_t>(slot)];
      p = sees(slot) ? std::exp(p - largest) : 0;
      sum += p;
    }
    for (std::size_t slot = 0; slot < x.size(); ++slot)
      out[g * x.size() + slot] = static_cast<float>(sum > 0 ? x[slot] / sum : 0);
  }
}

}  // namespace a2sf
