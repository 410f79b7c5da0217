// The forward pass's operations as plain loops: float32 weights and activations, sums in double.
#include <algorithm>
#include <cmath>

#include "kernels/host/capabilities.h"
#include "kernels/logits.h"
#include "kernels/random_weights.h"
#include "kernels/reference/attention.h"
#include "kernels/rows.h"
#include "kernels/span_failures.h"

namespace a2sf {
namespace {

class ReferenceBackend final : public Backend {
 public:
  explicit ReferenceBackend(Memory& memory)
      : memory_(memory), weights_(memory), activations_(memory), logits_(memory, log_sum_exp) {}

  const Capabilities& capabilities() const override { return capabilities_; }
  int threads() const override { return 1; }
  const std::string& isa() const override { return capabilities_.name; }

  Status load(WeightView&, WeightRole) override { return {}; }
  Status load_random(WeightView& weight, WeightRole role, std::uint64_t seed) override {
    return make_random(weight, RandomRows(weight, role, seed), weights_);
  }
  Activations make_activations(int columns, StepRows rows) override { return activations_.make(columns, rows); }
  std::unique_ptr<SequenceStore> make_sequence(const SequenceShape& shape, ResolvedRetention resolved) override {
    return std::make_unique<HostStore>(memory_, shape, std::move(resolved));
  }

  Status begin(const Step& step, const ModelShape& shape) override {
    step_ = &step;
    failures_.begin(step);
    attention_.begin(step, shape.ropes);
    if (auto room = activations_.begin(step); !room) return room;
    return logits_.begin(step, shape.vocabulary);
  }
  void embed(const WeightView& table, float scale, Activations out) override {
    for (int row = 0; row < rows(); ++row)
      embed_row(table, step_->tokens[static_cast<std::size_t>(row)], scale, activations_.rows(out).row(row));
  }
  void add_positions(const WeightView& table, int offset, Activations out) override {
    std::vector<float> embedding(static_cast<std::size_t>(table.columns));
    for (const Span& span : step_->spans) add_positions_of(span, table, offset, embedding, activations_.rows(out));
  }
  void norm(Activations in, const Norm& norm, Activations out) override {
    norm_rows(activations_.rows(in), norm, activations_.count(in), activations_.rows(out));
  }
  void matmul(const MatmulArgs& args) override {
    const HostRows in = normed(args.in, args.norm);
    for (const HostProduct& product : activations_.products(args.products))
      multiply(in, activations_.count(args.in), product);
    if (args.gate) activate(args);
  }
  void add(Activations in, const Norm* norm, Activations out) override {
    add_rows(normed(in, norm), activations_.count(in), activations_.rows(out));
  }
  void gather(Activations in, Activations out) override {
    gather_rows(*step_, activations_.rows(in), activations_.rows(out));
  }
  void predict(const PredictArgs& args) override {
    const HostRows logits = logits_.rows();
    multiply(normed(args.in, args.norm), activations_.count(args.in), {args.head, nullptr, logits});
    for (int i = 0; i < activations_.count(args.in); ++i) {
      float* x = logits.row(i);
      if (!std::all_of(x, x + logits.columns, [](float logit) { return std::isfinite(logit); })) {
        failures_.report_logits(step_->wanted[static_cast<std::size_t>(i)].row);
        continue;
      }
      if (args.softcap > 0) softcap_row(x, args.softcap, logits.columns);
      logits_.deliver(i);
    }
  }
  void attend(const AttendArgs& handles) override {
    const HostAttendArgs args = activations_.attend_args(handles);
    const HostRows q = heads_of(args.q, args.head_dim), k = heads_of(args.k, args.head_dim);
    if (handles.q_norm != nullptr) norm_rows(q, *handles.q_norm, rows() * args.heads, q);
    if (handles.k_norm != nullptr) norm_rows(k, *handles.k_norm, rows() * args.kv_heads, k);
    attention_.attend(args);
  }
  void end(std::span<Status> outcomes) override { failures_.end(outcomes); }

 private:
  int rows() const { return static_cast<int>(step_->tokens.size()); }

  static void norm_rows(HostRows in, const Norm& norm, int count, HostRows out) {
    for (int row = 0; row < count; ++row) norm_row(norm, in.row(row), in.columns, out.row(row));
  }
  // What an operation reads that takes the norm of its input, where there is one.
  HostRows normed(Activations in, const Norm* norm) const {
    const HostRows rows = activations_.rows(in);
    if (norm == nullptr) return rows;
    const HostRows out = activations_.scratch(rows.columns);
    norm_rows(rows, *norm, activations_.count(in), out);
    return out;
  }
  static void multiply(HostRows in, int count, const HostProduct& product) {
    std::vector<float> weights(static_cast<std::size_t>(in.columns));
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
  void activate(const MatmulArgs& args) const {
    const HostRows first = activations_.rows(args.products[0].out), out = activations_.rows(args.gate->out);
    const HostRows second = args.products.size() > 1 ? activations_.rows(args.products[1].out) : HostRows{};
    for (int row = 0; row < activations_.count(args.in); ++row)
      activate_row<double>(args.gate->function, first.row(row), second.data == nullptr ? nullptr : second.row(row),
                           first.columns, out.row(row));
  }

  Memory& memory_;
  const Step* step_ = nullptr;
  SpanFailures failures_;
  reference::Attention attention_{failures_};
  WeightMemory weights_;
  HostActivations activations_;
  HostLogits logits_;
  Capabilities capabilities_ = host_capabilities("reference");
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend(Memory& memory) { return std::make_unique<ReferenceBackend>(memory); }

}  // namespace a2sf
