#include "kernels/cpu/attention.h"

#include <algorithm>
#include <thread>

namespace a2sf::cpu {
namespace {

LayerFacts facts_of(const AttendArgs& args, const Span& span) {
  const HostStore& store = host_store(span);
  LayerFacts facts{.rows = span.rows,
                   .slots = 0,
                   .window = args.window,
                   .in_prompt = in_prompt(span),
                   .scores = false,
                   .oracle = false,
                   .ring = true,
                   .watched = store.is_watched()};
  const auto rules = store.retention().layer_rules(args.layer);
  for (int h = 0; h < args.kv_heads; ++h) {
    const HeadCache& head = store.head(args.layer, h);
    const HeadRule& rule = rules[static_cast<std::size_t>(h)];
    facts.slots = std::max(facts.slots, head.used());
    facts.scores = facts.scores || scores(rule);
    facts.oracle = facts.oracle || rule.mode == RetentionMode::oracle;
    facts.ring = facts.ring && head.is_ring() && rule.mode == RetentionMode::all;
  }
  return facts;
}

bool keeps_numerators(const HeadRule& rule) { return scores(rule) || rule.mode == RetentionMode::oracle; }

}  // namespace

Attention::Attention(ThreadPool& pool, const RowKernels& kernels, SpanFailures& failures)
    : pool_(pool),
      kernels_(kernels),
      failures_(failures),
      tiles_(static_cast<std::size_t>(pool.threads())),
      handed_over_(std::make_unique<std::atomic<bool>[]>(tiles_.size())) {}

void Attention::begin(const Step& step, const ModelShape& shape) {
  step_ = &step;
  rotations_.resize(shape.ropes.size());
  for (std::size_t i = 0; i < shape.ropes.size(); ++i) rotations_[i].prepare(step, shape.ropes[i]);
  chains_.clear();
  partitions_.clear();
  prepare_shadows(step, shape);
  chains_.reserve((step.spans.size() + shadows_.size()) * static_cast<std::size_t>(shape.heads));
  for (const Span& span : step.spans) reserve(span, shape.heads);
  for (const Span& span : shadows_) reserve(span, shape.heads);
}

void Attention::prepare_shadows(const Step& step, const ModelShape& shape) {
  shadows_.clear();
  shadow_of_.clear();
  int columns = 0;
  for (const Span& span : step.spans) {
    for (const Shadow& shadow : host_store(span).shadows()) {
      shadows_.push_back(span);
      shadows_.back().store = shadow.store.get();
      shadow_of_.push_back(&shadow);
      columns = shape.heads * shadow.store->shape().head_dim;
    }
  }
  shadow_out_.resize(shadows_.empty() ? 0 : step.tokens.size() * static_cast<std::size_t>(columns));
}

// Any worker may process any rows, and a long row that is split over the threads needs a tile per KV head: so all tiles
// have room for the largest.
void Attention::reserve(const Span& span, int heads) {
  const HostStore& store = host_store(span);
  const SequenceShape& shape = store.shape();
  const auto& rules = store.retention().rules;
  const auto kv_heads = static_cast<std::size_t>(shape.kv_heads);
  const std::int64_t slots = round_up(store.most_used(span.rows), kTile);
  const int group = heads / shape.kv_heads, rows = std::min(span.rows, rows_of_tile(group));
  const bool keeps = store.is_watched() || std::any_of(rules.begin(), rules.end(), keeps_numerators) ||
                     (span.rows == 1 && slots > kLongRow);
  tiles_.resize(std::max(tiles_.size(), kv_heads));
  for (QueryTile& tile : tiles_) {
    tile.reserve(std::int64_t{rows} * group, slots, round_up(shape.head_dim, kTile), keeps);
    if (store.most_cold_slots() > 0)
      tile.recall().reserve(span.first_position + span.rows, slots, store.most_cold_slots(), group);
  }
  first_slots_.resize(std::max(first_slots_.size(), kv_heads));
  lowest_.resize(first_slots_.size());
  partitions_.reserve(kv_heads * static_cast<std::size_t>((slots + kChunk - 1) / kChunk));
}

void Attention::attend(const AttendArgs& args) {
  attend_spans(args, step_->spans);
  if (!shadows_.empty()) attend_shadows(args);
}

void Attention::attend_spans(const AttendArgs& args, std::span<const Span> spans) {
  const LayerTask layer{args, kernels_, rotations_[static_cast<std::size_t>(args.rope)], failures_};
  chains_.clear();
  for (const Span& span : spans) {
    if (failures_.failed(span)) continue;
    const LayerFacts facts = facts_of(args, span);
    switch (schedule_of(facts)) {
      case Schedule::head_by_head:
        add_chains(layer, span);
        break;
      case Schedule::side_by_side:
        run_prompt(layer, span, facts);
        break;
      case Schedule::in_ring:
        run_in_ring(layer, span, facts);
        break;
      case Schedule::over_partitions:
        run_over_partitions(layer, span);
        break;
      case Schedule::watched:
        run_watched(layer, span);
        break;
    }
  }
  run_chains(layer);
}

void Attention::add_chains(const LayerTask& layer, const Span& span) {
  for (int h = 0; h < layer.args.kv_heads; ++h) {
    const std::int64_t slots = HeadTask(layer, span, h).head().most_used(span.rows);
    chains_.push_back({&span, h, chains_.empty() ? 0 : chains_.back().end(), slots + kTile});
  }
}

// The chains, laid end to end, are cut into equal shares, one per thread. No share is shorter than the longest chain,
// so that a chain is cut once at most. A thread works through its share from the back: it starts with the first rows of
// the chain that the next share continues, and ends with the last rows of the chain that the share before started with.
// By then those first rows have usually been done for long, and the thread need not wait for them.
void Attention::run_chains(const LayerTask& layer) {
  if (chains_.empty()) return;
  std::int64_t share = (chains_.back().end() + pool_.threads() - 1) / pool_.threads();
  for (const Chain& chain : chains_) share = std::max(share, chain.end() - chain.begin);
  const auto shares = static_cast<int>((chains_.back().end() + share - 1) / share);
  for (int i = 0; i < shares; ++i) handed_over_[static_cast<std::size_t>(i)].store(false, std::memory_order_relaxed);
  pool_.run(shares, [&](int task, int worker) {
    // The first row that begins at `at` or after it.
    const auto row_at = [](const Chain& chain, std::int64_t at) {
      const std::int64_t row = (at - chain.begin + chain.row_cost - 1) / chain.row_cost;
      return static_cast<int>(std::clamp<std::int64_t>(row, 0, chain.span->rows));
    };
    for (auto chain = chains_.rbegin(); chain != chains_.rend(); ++chain) {
      const int first = row_at(*chain, task * share), end = row_at(*chain, (task + 1) * share);
      if (first == end) continue;
      if (first > 0) {
        while (!handed_over_[static_cast<std::size_t>(task - 1)].load(std::memory_order_acquire))
          std::this_thread::yield();
      }
      HeadTask(layer, *chain->span, chain->kv_head).run({first, end - first}, tile(worker));
      if (end < chain->span->rows) handed_over_[static_cast<std::size_t>(task)].store(true, std::memory_order_release);
    }
  });
}

// The last row attends alone where tokens may come back before it.
void Attention::run_prompt(const LayerTask& layer, const Span& span, const LayerFacts& facts) {
  const int alone = recalls_before(span, layer.args.layer, span.rows - 1) ? 1 : 0;
  run_side_by_side(layer, span, {0, span.rows - alone}, facts);
  if (alone == 0 || failures_.failed(span)) return;
  pool_.run(layer.args.kv_heads, [&](int h, int worker) {
    HeadTask(layer, span, h).run({span.rows - 1, 1}, tile(worker));
  });
}

// A ring has kWindowRows slots more than its window, so that as many rows can be appended before anything is freed.
// What has left a row's window meanwhile is masked for this row.
void Attention::run_in_ring(const LayerTask& layer, const Span& span, const LayerFacts& facts) {
  for (int first = 0; first < span.rows; first += kWindowRows) {
    const Rows rows{first, std::min(kWindowRows, span.rows - first)};
    run_side_by_side(layer, span, rows, facts);
    if (failures_.failed(span)) return;
    pool_.run(layer.args.kv_heads, [&](int h, int) {
      for (int row = rows.first; row < rows.end(); ++row) HeadTask(layer, span, h).expire(row);
    });
  }
}

// Once all keys and values are stored the rows are independent. Only the scores must be updated row after row.
void Attention::run_side_by_side(const LayerTask& layer, const Span& span, Rows rows, const LayerFacts& facts) {
  const int kv_heads = layer.args.kv_heads;
  pool_.run(kv_heads, [&](int h, int worker) {
    const HeadTask task(layer, span, h);
    first_slots_[static_cast<std::size_t>(h)] = task.head().used();
    task.append(rows, tile(worker));
  });
  if (failures_.failed(span)) return;
  const int at_once = facts.oracle ? 1 : rows_of_tile(layer.group());
  const int tiles = (rows.count + at_once - 1) / at_once;
  const auto rows_of = [&](int i) {
    return Rows{rows.first + i * at_once, std::min(at_once, rows.count - i * at_once)};
  };
  const auto attend_tile = [&](int i, int h, QueryTile& tile) {
    const HeadTask task(layer, span, h);
    // New rows take free slots first, so that the high-water mark may rise by less than the number of rows.
    const int used = task.head().used(), before = first_slots_[static_cast<std::size_t>(h)];
    const int slots = task.head().is_ring() ? used : std::min(used, before + rows_of(i).end() - rows.first);
    task.attend(rows_of(i), slots, tile);
  };
  if (!facts.scores) {
    pool_.run(tiles * kv_heads,
              [&](int task, int worker) { attend_tile(task / kv_heads, task % kv_heads, tile(worker)); });
    return;
  }
  // In waves of as many tiles as there are: a tile keeps its numerators until the scores are updated.
  const int count = tiles * kv_heads, wave = static_cast<int>(tiles_.size());
  for (int begin = 0; begin < count; begin += wave) {
    const int end = std::min(begin + wave, count);
    pool_.run(end - begin, [&](int i, int) { attend_tile((begin + i) / kv_heads, (begin + i) % kv_heads, tile(i)); });
    if (failures_.failed(span)) return;
    pool_.run(kv_heads, [&](int h, int) {
      const HeadTask task(layer, span, h);
      for (int i = 0; i < end - begin; ++i) {
        if ((begin + i) % kv_heads != h) continue;
        const Rows scored = rows_of((begin + i) / kv_heads);
        task.evict(scored.last(), task.score(scored, tile(i)), tile(i));
      }
    });
  }
}

void Attention::run_over_partitions(const LayerTask& layer, const Span& span) {
  const Rows row{0, 1};
  partitions_.clear();
  for (int h = 0; h < layer.args.kv_heads; ++h) {
    const HeadTask task(layer, span, h);
    if (!task.append(row, tile(h))) return;
    task.recall(0, tile(h));
    task.start(row, task.head().used(), true, tile(h));
    for (int i = 0; i < tile(h).partitions(); ++i) partitions_.push_back({h, i});
  }
  const auto count = static_cast<int>(partitions_.size());
  pool_.run(count, [&](int i, int) {
    const Partition& partition = partitions_[static_cast<std::size_t>(i)];
    const Partition* next = i + 1 < count ? &partitions_[static_cast<std::size_t>(i + 1)] : nullptr;
    tile(partition.kv_head).compute_numerators(partition.index);
    tile(partition.kv_head)
        .weigh_values(partition.index, next == nullptr ? nullptr : tile(next->kv_head).chunk(next->index).keys);
  });
  pool_.run(layer.args.kv_heads, [&](int h, int) {
    const HeadTask task(layer, span, h);
    if (task.finish(row, tile(h).normalise(), tile(h))) task.evict(0, task.score(row, tile(h)), tile(h));
  });
}

}  // namespace a2sf::cpu
