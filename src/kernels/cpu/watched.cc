// Attention for sequences with hooks, observers or shadows.
#include <algorithm>
#include <new>

#include "kernels/cpu/attention.h"

namespace a2sf::cpu {
namespace {

// With the kernels of attention itself, so that a hook sees the very probabilities that its rows had.
class TileProbabilities final : public ProbabilitySource {
 public:
  // `rows`: the tiles of the rows just computed, one per KV head; `tile`: memory for others.
  TileProbabilities(const RowKernels& kernels, std::span<const QueryTile> rows, QueryTile& tile)
      : kernels_(kernels), rows_(rows), tile_(tile) {}

  float of_last_row(int kv_head, int slot) const override {
    return rows_[static_cast<std::size_t>(kv_head)].last_row_probability(slot);
  }

  void compute(HeadCache& head, const GroupQueries& row, std::span<float> out) override {
    const int group = static_cast<int>(row.queries.size());
    tile_.reserve(group, round_up(head.used(), kTile), head.dim(), true);
    tile_.start(kernels_, head, {group, row.head_dim, row.scale, row.window}, row.position, 1, head.used(), true);
    for (int g = 0; g < group; ++g)
      std::copy_n(row.queries[static_cast<std::size_t>(g)], row.head_dim, tile_.query(0, g));
    for (int i = 0; i < tile_.partitions(); ++i) tile_.compute_numerators(i);
    if (tile_.normalise() >= 0) {  // everything that the row attended to has been evicted
      std::fill(out.begin(), out.end(), 0.0F);
      return;
    }
    const auto slots = static_cast<std::size_t>(head.used());
    for (int g = 0; g < group; ++g)
      tile_.read_probabilities(0, g, out.subspan(static_cast<std::size_t>(g) * slots, slots));
  }

 private:
  const RowKernels& kernels_;
  std::span<const QueryTile> rows_;
  QueryTile& tile_;
};

}  // namespace

// The heads attend in parallel. Then hooks and observers see the whole layer: after each row if one wants to, otherwise
// after as many rows as pass before an eviction is due.
void Attention::run_watched(const LayerTask& layer, const Span& span) {
  HostStore& store = host_store(span);
  for (int row = 0; row < span.rows && !failures_.failed(span);) {
    std::int64_t count = store.wants_every_row()   ? 1
                         : in_prompt(span)         ? span.rows - row
                         : store.hook() != nullptr ? rows_until_hook(store, layer.args.layer)
                                                   : span.rows - row;
    for (int h = 0; h < layer.args.kv_heads; ++h) {
      const HeadTask task(layer, span, h);
      task.expire(row);
      count = std::min<std::int64_t>(count, task.rows_until_eviction(row));
    }
    const Rows rows{row, static_cast<int>(count)};
    for (int i = rows.first; i < rows.end() && store.queries().last_rows() > 0; ++i)
      store.queries().begin(layer.args.layer, span.first_position + i);
    pool_.run(layer.args.kv_heads, [&](int h, int) {
      const HeadTask task(layer, span, h);
      if (!task.append(rows, tile(h))) return;
      task.recall(rows.first, tile(h));
      if (!task.attend(rows, task.head().used(), tile(h))) return;
      task.keep_queries(rows, tile(h));
      lowest_[static_cast<std::size_t>(h)] = task.score(rows, tile(h));
    });
    if (failures_.failed(span)) return;
    if (auto watched = watch_rows(layer, span, rows); !watched) {
      failures_.report_hook(span, std::move(watched.error()));
      return;
    }
    row = rows.end();
  }
}

Status Attention::watch_rows(const LayerTask& layer, const Span& span, Rows rows) try {
  HostStore& store = host_store(span);
  const int number = layer.args.layer;
  const std::int64_t now = span.first_position + rows.last();
  TileProbabilities probabilities(kernels_, tiles_, looked_at_);
  LayerWatch watch(store, {number, now, span.token_ids}, probabilities);
  const bool prompt_ends = span.prompt_ends && rows.end() == span.rows;
  if (auto watched = watch.after_row(in_prompt(span), prompt_ends); !watched) return watched;
  for (int h = 0; h < layer.args.kv_heads; ++h)
    HeadTask(layer, span, h).evict(rows.last(), lowest_[static_cast<std::size_t>(h)], tile(h));
  tell_who_left(store, number);
  return {};
} catch (const std::bad_alloc&) {
  return fail(ErrorKind::out_of_memory, "out of memory in a hook");
}

void Attention::attend_shadows(const AttendArgs& args) {
  const int columns = args.heads * args.head_dim;
  AttendArgs shadowed = args;
  shadowed.out = {shadow_out_.data(), columns};
  for (std::size_t s = 0; s < shadows_.size(); ++s) {  // one by one: they share the rows of the output
    const Span& span = shadows_[s];
    try {
      attend_spans(shadowed, {&span, 1});
      if (failures_.failed(span)) continue;
      show_outputs(*shadow_of_[s]->observer, args, shadowed.out, span);
    } catch (const std::bad_alloc&) {
      failures_.report_hook(span, {ErrorKind::out_of_memory, "out of memory in a shadow's observer"});
    }
  }
}

}  // namespace a2sf::cpu
