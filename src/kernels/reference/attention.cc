#include "kernels/reference/attention.h"

#include <algorithm>
#include <functional>
#include <new>
#include <utility>

namespace a2sf::reference {
namespace {

// Those of the last row are known already.
class RowProbabilities final : public ProbabilitySource {
 public:
  using OfLastRow = std::function<float(int kv_head, int slot)>;
  explicit RowProbabilities(OfLastRow of_last_row) : of_last_row_(std::move(of_last_row)) {}

  void compute(HeadCache& head, const GroupQueries& row, std::span<float> out) override {
    plain_.compute(head, row, out);
  }
  float of_last_row(int kv_head, int slot) const override { return of_last_row_(kv_head, slot); }

 private:
  OfLastRow of_last_row_;
  PlainProbabilities plain_;
};

Leave leave(const HostAttendArgs& args, const Span& span, std::int64_t now, int kv_head) {
  return [&args, &span, now, kv_head](const Victim& victim) {
    host_store(span).release(args.layer, kv_head, victim.slot, now, victim.probability);
  };
}

}  // namespace

void Attention::begin(const Step& step, std::span<const RopeTable> ropes) {
  step_ = &step;
  ropes_ = ropes;
}

void Attention::attend(const HostAttendArgs& args) {
  for (const Span& span : step_->spans) {
    attend_span(args, span);
    for (const Shadow& shadow : host_store(span).shadows()) attend_shadow(args, span, shadow);
  }
}

void Attention::attend_span(const HostAttendArgs& args, const Span& span) {
  for (int row = 0; row < span.rows && !failures_.failed(span); ++row) {
    if (auto attended = attend_row(args, span, row); !attended)
      failures_.report_hook(span, std::move(attended.error()));
  }
}

void Attention::attend_shadow(const HostAttendArgs& args, const Span& span, const Shadow& shadow) try {
  Span shadowed = span;
  shadowed.store = shadow.store.get();
  std::vector<float> out(step_->tokens.size() * static_cast<std::size_t>(args.out.columns));
  HostAttendArgs to_shadow = args;
  to_shadow.out = {out.data(), args.out.columns};
  attend_span(to_shadow, shadowed);
  if (!failures_.failed(span)) show_outputs(*shadow.observer, args, to_shadow.out, span);
} catch (const std::bad_alloc&) {
  failures_.report_hook(span, {ErrorKind::out_of_memory, "out of memory in a shadow's observer"});
}

// All heads attend, then somebody may see the layer, then tokens go.
Status Attention::attend_row(const HostAttendArgs& args, const Span& span, int row) try {
  HostStore& store = host_store(span);
  if (store.is_watched() && store.queries().last_rows() > 0)
    store.queries().begin(args.layer, span.first_position + row);
  std::vector<HeadRow> heads;
  for (int h = 0; h < args.kv_heads; ++h) {
    heads.push_back(head_row(args, span, row, h));
    if (!attend_head(args, span, heads.back(), h)) return {};
  }
  if (store.is_watched()) {
    RowProbabilities probabilities([&](int h, int slot) {
      return static_cast<float>(heads[static_cast<std::size_t>(h)].probabilities[static_cast<std::size_t>(slot)]);
    });
    LayerWatch watch(store, {args.layer, span.first_position + row, span.token_ids}, probabilities);
    const bool prompt_ends = span.prompt_ends && row == span.rows - 1;
    if (auto watched = watch.after_row(in_prompt(span), prompt_ends); !watched) return watched;
  }
  for (int h = 0; h < args.kv_heads; ++h) {
    const HeadRow& head = heads[static_cast<std::size_t>(h)];
    evict(head.row, head.probabilities, leave(args, span, head.row.position, h));
  }
  if (store.is_watched()) tell_who_left(store, args.layer);
  return {};
} catch (const std::bad_alloc&) {
  return fail(ErrorKind::out_of_memory, "out of memory in a row of the reference");
}

Attention::HeadRow Attention::head_row(const HostAttendArgs& args, const Span& span, int row, int kv_head) const {
  const int group = args.heads / args.kv_heads;
  const auto dim = static_cast<std::size_t>(args.head_dim), size = static_cast<std::size_t>(group) * dim;
  const std::int64_t now = span.first_position + row;
  const float* q = args.q.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * size;
  const float* k = args.k.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * dim;
  const float* v = args.v.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * dim;
  float* out = args.out.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * size;
  HeadRow head{{q, q + size}, {k, k + dim}, {}, {}};
  const RopeTable& rope = ropes_[static_cast<std::size_t>(args.rope)];
  rotate(head.k, rope, now);
  for (std::size_t g = 0; g < static_cast<std::size_t>(group); ++g)
    rotate(std::span(head.q).subspan(g * dim, dim), rope, now);
  HostStore& store = host_store(span);
  const bool prompt_ends = span.prompt_ends && row == span.rows - 1;
  head.row = {&store.head(args.layer, kv_head),
              &store.retention().rule(args.layer, kv_head),
              store.retention().block,
              now,
              group,
              args.head_dim,
              args.window,
              args.scale,
              !in_prompt(span) || prompt_ends,
              prompt_ends && in_prompt(span),
              head.q,
              head.k,
              {v, dim},
              {out, size}};
  if (head.row.rule->classes) head.row.token_class = &store.class_of(span.token_ids[static_cast<std::size_t>(now)]);
  if (head.row.rule->mode == RetentionMode::score && recalls_before(span, args.layer, row)) {
    head.row.cold = Recall{&store.cold(args.layer, kv_head), store.retention().cold.recall,
                           [&store, layer = args.layer, kv_head, now](const Victim& victim) {
                             store.record(layer, kv_head, victim.slot, now, victim.probability);
                           }};
  }
  return head;
}

bool Attention::attend_head(const HostAttendArgs& args, const Span& span, HeadRow& head, int kv_head) {
  HostStore& store = host_store(span);
  const std::int64_t now = head.row.position;
  expire(head.row, leave(args, span, now, kv_head));
  if (head.row.head->is_full()) {
    failures_.report(span, FailureCause::eviction, now, args.layer, kv_head);
    return false;
  }
  auto probabilities = attend_and_score(head.row);
  if (!probabilities) {
    failures_.report(span, FailureCause::attention, now, args.layer, kv_head);
    return false;
  }
  head.probabilities = std::move(*probabilities);
  const auto dim = static_cast<std::size_t>(args.head_dim);
  for (int g = 0; g < head.row.group && store.is_watched() && store.queries().last_rows() > 0; ++g) {
    std::copy_n(head.q.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(g) * dim), dim,
                store.queries().place(args.layer, now, kv_head * head.row.group + g));
  }
  return true;
}

}  // namespace a2sf::reference
