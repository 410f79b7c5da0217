// The forward pass's operations as plain loops: float32 weights and activations, sums in double.
#include <algorithm>
#include <cmath>

#include "kernels/backend.h"
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
      if (span.retention->mode == RetentionMode::hook) {
        failures_.report_hook(span,
                              {ErrorKind::unsupported, "the reference backend runs no hooks; use the cpu device"});
      }
      for (int row = 0; row < span.rows; ++row) {
        for (int h = 0; h < args.kv_heads && !failures_.failed(span); ++h) attend_row(args, span, row, h);
      }
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

  void attend_row(const AttendArgs& args, const Span& span, int row, int kv_head) {
    const int group = args.heads / args.kv_heads;
    const auto dim = static_cast<std::size_t>(args.head_dim), size = static_cast<std::size_t>(group) * dim;
    const std::int64_t now = span.first_position + row;
    std::span q(args.q.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * size, size);
    std::span k(args.k.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * dim, dim);
    std::span v(args.v.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * dim, dim);
    std::span out(args.out.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * size, size);
    const RopeTable& rope = ropes_[static_cast<std::size_t>(args.rope)];
    reference::rotate(k, rope, now);
    for (std::size_t g = 0; g < static_cast<std::size_t>(group); ++g)
      reference::rotate(q.subspan(g * dim, dim), rope, now);
    const bool prompt_ends = span.prompt_ends && row == span.rows - 1;
    if (span.cache->head(args.layer, kv_head).is_full()) {
      failures_.report(span, FailureCause::eviction, now, args.layer, kv_head);
      return;
    }
    const auto victims = reference::attend(
        {&span.cache->head(args.layer, kv_head), span.retention, &span.retention->rule(args.layer, kv_head), now, group,
         args.head_dim, args.window, args.scale, !span.in_prompt || prompt_ends, prompt_ends, q, k, v, out});
    if (!victims) failures_.report(span, FailureCause::attention, now, args.layer, kv_head);
    if (!victims || span.evictions == nullptr) return;
    for (const std::int32_t victim : *victims) {
      (*span.evictions)[static_cast<std::size_t>(args.layer * args.kv_heads + kv_head)].push_back(
          {victim, static_cast<std::int32_t>(now)});
    }
  }

  const Step* step_ = nullptr;
  std::span<const RopeTable> ropes_;
  SpanFailures failures_;
  std::string isa_ = "reference";
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace a2sf
