// The forward pass's operations as plain loops: float32 weights and activations, sums in double.
#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

#include "kernels/backend.h"
#include "kernels/host/watch.h"
#include "kernels/reference/attend.h"
#include "kernels/rows.h"
#include "kernels/span_failures.h"

namespace a2sf {
namespace {

class ReferenceBackend final : public Backend {
 public:
  Memory& memory() override { return host_memory(); }
  int threads() const override { return 1; }
  const std::string& isa() const override { return isa_; }

  std::unique_ptr<SequenceStore> make_sequence(const SequenceShape& shape, ResolvedRetention resolved) override {
    return std::make_unique<HostStore>(host_memory(), shape, std::move(resolved));
  }
  Status load(WeightView&) override { return {}; }
  Status begin(const Step& step, const ModelShape& shape) override {
    step_ = &step;
    ropes_ = shape.ropes;
    failures_.begin(step);
    return {};
  }
  void embed(const WeightView& table, float scale, Activations out) override {
    for (int row = 0; row < rows(); ++row)
      embed_row(table, step_->tokens[static_cast<std::size_t>(row)], scale, out.row(row));
  }
  void add_positions(const WeightView& table, int offset, Activations out) override {
    std::vector<float> embedding(static_cast<std::size_t>(table.columns));
    for (const Span& span : step_->spans) add_positions_of(span, table, offset, embedding, out);
  }
  void norm(Activations in, const Norm& norm, int count, Activations out) override {
    for (int row = 0; row < count; ++row) norm_row(norm, in.row(row), in.columns, out.row(row));
  }
  void matmul(Activations in, int count, std::span<const Product> products) override {
    std::vector<float> weights(static_cast<std::size_t>(in.columns));
    for (const Product& product : products) {
      for (std::int64_t output = 0; output < product.weight->rows; ++output) {
        dequantise_row(*product.weight, output, weights.data());
        const float bias = product.bias == nullptr ? 0 : floats(*product.bias)[output];
        for (int row = 0; row < count; ++row) {
          double sum = 0;
          for (int i = 0; i < in.columns; ++i)
            sum += static_cast<double>(weights[static_cast<std::size_t>(i)]) * in.row(row)[i];
          float& out = product.out.row(row)[output];
          out = (product.add ? out : 0) + static_cast<float>(sum) + bias;
        }
      }
    }
  }
  void activate(Activation activation, Activations gate, Activations up) override {
    for (int row = 0; row < rows(); ++row)
      activate_row<double>(activation, gate.row(row), up.data == nullptr ? nullptr : up.row(row), gate.columns);
  }
  void add(Activations in, int count, Activations out) override {
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(count) * in.columns; ++i) out.data[i] += in.data[i];
  }
  void softcap(Activations logits, int count, float most) override {
    for (int row = 0; row < count; ++row) softcap_row(logits.row(row), most, logits.columns);
  }
  void attend(const AttendArgs& args) override {
    for (const Span& span : step_->spans) {
      attend_span(args, span);
      for (const Shadow& shadow : host_store(span.store).shadows()) attend_shadow(args, span, shadow);
    }
  }
  void gather(Activations in, std::span<const int> wanted, Activations out) override { gather_rows(in, wanted, out); }
  void check_logits(Activations logits, std::span<const int> wanted) override {
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const float* x = logits.row(static_cast<std::int64_t>(i));
      if (!std::all_of(x, x + logits.columns, [](float logit) { return std::isfinite(logit); }))
        failures_.report_logits(wanted[i]);
    }
  }
  void end(std::span<Status> outcomes) override { failures_.end(outcomes); }

 private:
  int rows() const { return static_cast<int>(step_->tokens.size()); }

  void attend_span(const AttendArgs& args, const Span& span) {
    for (int row = 0; row < span.rows && !failures_.failed(span); ++row) {
      if (auto attended = attend_row(args, span, row); !attended)
        failures_.report_hook(span, std::move(attended.error()));
    }
  }

  void attend_shadow(const AttendArgs& args, const Span& span, const Shadow& shadow) {
    Span shadowed = span;
    shadowed.store = shadow.store.get();
    std::vector<float> out(step_->tokens.size() * static_cast<std::size_t>(args.out.columns));
    AttendArgs to_shadow = args;
    to_shadow.out = {out.data(), args.out.columns};
    attend_span(to_shadow, shadowed);
    const auto size = static_cast<std::size_t>(args.out.columns);
    for (int row = span.first_row; row < span.first_row + span.rows && !failures_.failed(span); ++row) {
      shadow.observer->outputs(args.layer, span.first_position + row - span.first_row, {args.out.row(row), size},
                               {to_shadow.out.row(row), size});
    }
  }

  // All heads attend, then somebody may see the layer, then tokens go.
  Status attend_row(const AttendArgs& args, const Span& span, int row) try {
    HostStore& store = host_store(span.store);
    std::vector<HeadRow> heads;
    for (int h = 0; h < args.kv_heads; ++h) {
      heads.push_back(head_row(args, span, row, h));
      if (!attend_head(args, span, heads.back(), h)) return {};
    }
    if (store.is_watched()) {
      if (auto watched = watch(args, span, row); !watched) return watched;
    }
    for (int h = 0; h < args.kv_heads; ++h) {
      const HeadRow& head = heads[static_cast<std::size_t>(h)];
      reference::evict(head.row, head.probabilities, leave(args, span, head.row.position, h));
    }
    if (store.is_watched()) tell_who_left(store, args.layer);
    return {};
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::out_of_memory, "out of memory in a row of the reference");
  }

  // One row of one KV head, with rotated copies of what it reads.
  struct HeadRow {
    std::vector<float> q, k;
    std::vector<double> probabilities;
    reference::Row row;
  };

  HeadRow head_row(const AttendArgs& args, const Span& span, int row, int kv_head) const {
    const int group = args.heads / args.kv_heads;
    const auto dim = static_cast<std::size_t>(args.head_dim), size = static_cast<std::size_t>(group) * dim;
    const std::int64_t now = span.first_position + row;
    const float* q = args.q.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * size;
    const float* k = args.k.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * dim;
    const float* v = args.v.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * dim;
    float* out = args.out.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * size;
    HeadRow head{{q, q + size}, {k, k + dim}, {}, {}};
    const RopeTable& rope = ropes_[static_cast<std::size_t>(args.rope)];
    reference::rotate(head.k, rope, now);
    for (std::size_t g = 0; g < static_cast<std::size_t>(group); ++g)
      reference::rotate(std::span(head.q).subspan(g * dim, dim), rope, now);
    HostStore& store = host_store(span.store);
    const bool prompt_ends = span.prompt_ends && row == span.rows - 1;
    head.row = {&store.head(args.layer, kv_head),
                &store.retention().rule(args.layer, kv_head),
                store.retention().block,
                now,
                group,
                args.head_dim,
                args.window,
                args.scale,
                !span.in_prompt || prompt_ends,
                prompt_ends,
                head.q,
                head.k,
                {v, dim},
                {out, size}};
    return head;
  }

  bool attend_head(const AttendArgs& args, const Span& span, HeadRow& head, int kv_head) {
    HostStore& store = host_store(span.store);
    const std::int64_t now = head.row.position;
    reference::expire(head.row, leave(args, span, now, kv_head));
    if (head.row.head->is_full()) {
      failures_.report(span, FailureCause::eviction, now, args.layer, kv_head);
      return false;
    }
    auto probabilities = reference::attend_and_score(head.row);
    if (!probabilities) {
      failures_.report(span, FailureCause::attention, now, args.layer, kv_head);
      return false;
    }
    head.probabilities = std::move(*probabilities);
    const auto dim = static_cast<std::size_t>(args.head_dim);
    for (int g = 0; g < head.row.group && store.queries().last_rows() > 0; ++g) {
      std::copy_n(head.q.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(g) * dim), dim,
                  store.queries().query(args.layer, now, kv_head * head.row.group + g));
    }
    return true;
  }

  Status watch(const AttendArgs& args, const Span& span, int row) {
    HostStore& store = host_store(span.store);
    PlainProbabilities probabilities;
    LayerWatch watch(store, {args.layer, span.first_position + row, span.token_ids}, probabilities);
    if (store.wants_every_row()) {
      if (auto observed = watch.observe(); !observed) return observed;
    }
    const bool prompt_ends = span.prompt_ends && row == span.rows - 1;
    const bool is_due = store.hook() != nullptr && (!span.in_prompt || prompt_ends) &&
                        watch.is_over_budget(prompt_ends ? 0 : store.retention().block);
    return is_due ? watch.evict() : Status();
  }

  static reference::Leave leave(const AttendArgs& args, const Span& span, std::int64_t now, int kv_head) {
    return [&args, &span, now, kv_head](const reference::Victim& victim) {
      host_store(span.store).release(args.layer, kv_head, victim.slot, now, victim.probability);
    };
  }

  const Step* step_ = nullptr;
  std::span<const RopeTable> ropes_;
  SpanFailures failures_;
  std::string isa_ = "reference";
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace a2sf
