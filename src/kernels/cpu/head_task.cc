#include "kernels/cpu/head_task.h"

#include <algorithm>
#include <cmath>

namespace a2sf::cpu {
namespace {

// Queries of a tile; a multiple of the rows of the micro-kernel in chunk_product-inl.h.
constexpr int kQueriesOfTile = 24;

}  // namespace

int rows_of_tile(int group) { return std::max(1, kQueriesOfTile / group); }

HeadTask::HeadTask(const LayerTask& layer, const Span& span, int kv_head)
    : layer_(layer),
      span_(span),
      kv_head_(kv_head),
      store_(host_store(span)),
      head_(store_.head(layer.args.layer, kv_head)),
      rule_(store_.retention().rule(layer.args.layer, kv_head)) {}

void HeadTask::run(Rows rows, QueryTile& tile) const {
  for (int row = rows.first; row < rows.end() && !layer_.failures.failed(span_);) {
    expire(row);
    const Rows block{row, std::min(rows_until_eviction(row), rows.end() - row)};
    if (!append(block, tile)) return;
    recall(row, tile);
    if (!attend(block, head_.used(), tile)) return;
    evict(block.last(), score(block, tile), tile);
    row = block.end();
  }
}

int HeadTask::rows_until_eviction(int row) const {
  int rows = std::min(rows_of_tile(layer_.group()), span_.rows - row);
  if (layer_.args.window > 0 || rule_.mode == RetentionMode::oracle) return 1;
  if (rule_.mode != RetentionMode::score) return rows;
  for (int next = 1; next < rows; ++next) {
    if (recalls_before(row + next)) rows = next;
  }
  if (in_prompt(span_)) return rows;
  const std::int64_t room = rule_.budget + store_.retention().block - head_.occupied();
  return static_cast<int>(std::clamp<std::int64_t>(room, 1, rows));
}

void HeadTask::expire(int row) const {
  const std::int64_t now = span_.first_position + row;
  free_expired(head_, layer_.args.window, now,
               [&](int slot) { store_.release(layer_.args.layer, kv_head_, slot, now, 0); });
}

bool HeadTask::append(Rows rows, QueryTile& tile) const {
  const AttendArgs& args = layer_.args;
  float* const key = tile.key().data();
  for (int row = rows.first; row < rows.end(); ++row) {
    const auto position = static_cast<std::size_t>(span_.first_position + row);
    const float* value = args.v.row(span_.first_row + row) + kv_head_ * args.head_dim;
    std::copy_n(args.k.row(span_.first_row + row) + kv_head_ * args.head_dim, args.head_dim, key);
    layer_.rotations.apply(layer_.kernels, span_.first_row + row, key);
    const bool finite = layer_.kernels.finite(key, args.head_dim) && layer_.kernels.finite(value, args.head_dim);
    if (!finite || head_.is_full()) {
      layer_.failures.report(span_, finite ? FailureCause::eviction : FailureCause::attention,
                             span_.first_position + row, args.layer, kv_head_);
      return false;
    }
    const int slot = head_.claim(static_cast<std::int32_t>(position));
    layer_.kernels.store(head_.chunk_of(slot), head_.type(), slot % kChunk, head_.dim(), args.head_dim, key, value);
    if (rule_.value_weight) head_.weigh(slot, {value, static_cast<std::size_t>(args.head_dim)});
    if (rule_.classes) classify(head_, rule_, slot, store_.class_of(span_.token_ids[position]));
  }
  return true;
}

void HeadTask::start(Rows rows, int slots, bool keep, QueryTile& tile) const {
  const AttendArgs& args = layer_.args;
  const QueryGroup group{layer_.group(), args.head_dim, args.scale, args.window};
  tile.start(layer_.kernels, head_, group, span_.first_position + rows.first, rows.count, slots, keep);
  for (int i = 0; i < rows.count; ++i) {
    const int row = span_.first_row + rows.first + i;
    for (int g = 0; g < group.heads; ++g) {
      std::copy_n(args.q.row(row) + (kv_head_ * group.heads + g) * args.head_dim, args.head_dim, tile.query(i, g));
      layer_.rotations.apply(layer_.kernels, row, tile.query(i, g));
    }
  }
}

bool HeadTask::finish(Rows rows, int bad_row, QueryTile& tile) const {
  if (bad_row >= 0) {
    layer_.failures.report(span_, FailureCause::attention, span_.first_position + rows.first + bad_row,
                           layer_.args.layer, kv_head_);
    return false;
  }
  const int columns = layer_.group() * layer_.args.head_dim;
  for (int i = 0; i < rows.count; ++i)
    tile.write(i, layer_.args.out.row(span_.first_row + rows.first + i) + kv_head_ * columns);
  return true;
}

// While a span's last row reads its values, the keys of the same head in the next layer are prefetched. They are in no
// cache otherwise: since they were last read, a token has passed through the weights of all layers.
const std::byte* HeadTask::keys_to_prefetch(Rows rows) const {
  if (rows.end() < span_.rows) return nullptr;
  const HeadCache& next = store_.head((layer_.args.layer + 1) % store_.shape().layers, kv_head_);
  return next.chunks().empty() ? nullptr : next.chunks().front().keys;
}

bool HeadTask::attend(Rows rows, int slots, QueryTile& tile) const {
  const bool is_oracle = rule_.mode == RetentionMode::oracle;
  start(rows, slots, scores(rule_) || is_oracle, tile);
  return finish(rows, is_oracle ? tile.run_ideal(rule_.budget) : tile.run(keys_to_prefetch(rows)), tile);
}

ScoreUpdate HeadTask::update_after(int row) const {
  const Evictable evictable(rule_, span_.first_position + row);
  return {static_cast<float>(rule_.alpha),
          static_cast<float>(1 - rule_.alpha),
          rule_.power != 1,
          rule_.value_weight,
          static_cast<float>(rule_.threshold),
          rule_.classes ? class_numbers(rule_) : -1,
          static_cast<std::int32_t>(evictable.first),
          static_cast<std::int32_t>(evictable.last)};
}

float HeadTask::score(Rows rows, QueryTile& tile) const {
  if (!scores(rule_)) return INFINITY;
  const ScoreUpdate update = update_after(rows.last());
  float lowest = INFINITY;
  for (int i = 0; i < rows.count; ++i) lowest = tile.score(i, update);
  return lowest;
}

// Of the tokens that may be evicted, the one with the lowest score; of equal ones the oldest.
int HeadTask::find_victim(float lowest, const ScoreUpdate& update) const {
  int victim = -1;
  for (int c = 0; c * kChunk < head_.used() && std::isfinite(lowest); ++c) {
    const int slots = static_cast<int>(round_up(std::min(kChunk, head_.used() - c * kChunk), kTile));
    const int found = layer_.kernels.find_score(head_.chunks()[static_cast<std::size_t>(c)], slots, lowest, update);
    if (found < 0) continue;
    if (victim < 0 || head_.position(c * kChunk + found) < head_.position(victim)) victim = c * kChunk + found;
  }
  return victim;
}

// `row` is the last one of the tile.
void HeadTask::release(int row, int slot, QueryTile& tile) const {
  store_.release(layer_.args.layer, kv_head_, slot, span_.first_position + row,
                 store_.keeps_record() ? tile.last_row_probability(slot) : 0);
}

// In a prompt under block = prompt, after its last row alone.
bool HeadTask::evicts_after(int row) const {
  if (rule_.mode != RetentionMode::score) return false;
  const bool prompt_ends = span_.prompt_ends && row == span_.rows - 1;
  if (in_prompt(span_)) return prompt_ends;
  return head_.occupied() >= rule_.budget + store_.retention().block;
}

void HeadTask::evict(int row, float lowest, QueryTile& tile) const {
  if (!evicts_after(row)) return;
  evict_excess(row, lowest, tile);
}

// One victim, the usual case, is the slot with the lowest score; many at once are found by sorting.
void HeadTask::evict_excess(int row, float lowest, QueryTile& tile) const {
  const std::int64_t excess = head_.occupied() - rule_.budget;
  if (excess != 1) {
    std::vector<int>& victims = tile.victims();
    select_victims(head_, rule_, span_.first_position + row, excess, victims);
    for (const int slot : victims) release(row, slot, tile);
    return;
  }
  const int victim = find_victim(lowest, update_after(row));
  if (victim >= 0) release(row, victim, tile);
}

bool HeadTask::recalls_before(int row) const {
  return rule_.mode == RetentionMode::score && a2sf::recalls_before(span_, layer_.args.layer, row);
}

void HeadTask::recall(int row, QueryTile& tile) const {
  if (!recalls_before(row)) return;
  HeadCache& cold = store_.cold(layer_.args.layer, kv_head_);
  if (cold.occupied() == 0) return;
  start({row, 1}, head_.used(), true, tile);
  for (int i = 0; i < tile.partitions(); ++i) tile.compute_numerators(i);
  if (tile.normalise() >= 0) return;  // attend() reports it
  Recall& recall = tile.recall();
  for (int g = 0; g < layer_.group(); ++g) recall.log_sums()[static_cast<std::size_t>(g)] = tile.log_sum(0, g);
  for (int slot = 0; slot < head_.used(); ++slot)
    recall.of_head()[static_cast<std::size_t>(slot)] = tile.addition(0, slot, rule_.power != 1);
  const std::int64_t now = span_.first_position + row;
  const RecallChoice& choice = recall.choose(layer_.kernels, {now, tile.query(0, 0), layer_.args.scale}, head_, cold,
                                             rule_, store_.retention().cold.recall);
  for (std::size_t i = 0; i < choice.cold.size(); ++i) {
    store_.record(layer_.args.layer, kv_head_, choice.head[i].slot, now, 0);
    a2sf::recall(head_, cold, rule_, now, choice, i);
  }
}

void HeadTask::keep_queries(Rows rows, QueryTile& tile) const {
  QueryHistory& history = store_.queries();
  for (int i = std::max(0, rows.count - history.last_rows()); i < rows.count; ++i) {
    for (int g = 0; g < layer_.group(); ++g) {
      std::copy_n(
          tile.query(i, g), layer_.args.head_dim,
          history.place(layer_.args.layer, span_.first_position + rows.first + i, kv_head_ * layer_.group() + g));
    }
  }
}

}  // namespace a2sf::cpu
