// A device for tests: the CPU, whose weights, activations and caches nobody can touch but its own operations. What runs
// on it would run on a device with memory of its own.
#include <cstring>
#include <new>
#include <utility>

#include "kernels/backend.h"
#include "kernels/fenced/fenced_memory.h"

namespace a2sf {
namespace {

class FencedStore final : public SequenceStore {
 public:
  FencedStore(FencedMemory& memory, std::unique_ptr<SequenceStore> store) : memory_(memory), store_(std::move(store)) {}
  ~FencedStore() override = default;
  SequenceStore* inner() const { return store_.get(); }

  const Retention& retention() const override { return store_->retention(); }
  Status make_room(std::int64_t tokens, bool prompt) override {
    const OpenFence open(memory_);
    return store_->make_room(tokens, prompt);
  }
  Status end_prompt() override {
    const OpenFence open(memory_);
    return store_->end_prompt();
  }
  Result<std::unique_ptr<SequenceStore>> clone() const override {
    const OpenFence open(memory_);
    auto copy = store_->clone();
    if (!copy) return copy;
    return std::make_unique<FencedStore>(memory_, std::move(*copy));
  }
  Status resize(ResolvedRetention resized, std::span<const std::int32_t> token_ids) override {
    const OpenFence open(memory_);
    return store_->resize(std::move(resized), token_ids);
  }
  std::vector<RetainedToken> snapshot(int layer, int kv_head) const override {
    const OpenFence open(memory_);
    return store_->snapshot(layer, kv_head);
  }
  std::size_t bytes() const override { return store_->bytes(); }
  std::size_t cold_bytes() const override { return store_->cold_bytes(); }
  std::size_t peak_bytes() const override { return store_->peak_bytes(); }
  void record_evictions() override { store_->record_evictions(); }
  std::vector<Eviction> drain_evictions(int layer, int kv_head) override {
    return store_->drain_evictions(layer, kv_head);
  }
  Status observe(std::shared_ptr<Observer> observer, const HookNeeds& needs) override {
    return store_->observe(std::move(observer), needs);
  }
  Status add_shadow(std::unique_ptr<SequenceStore> shadow, std::shared_ptr<ShadowObserver> observer) override {
    return store_->add_shadow(std::move(static_cast<FencedStore&>(*shadow).store_), std::move(observer));
  }

 private:
  FencedMemory& memory_;
  std::unique_ptr<SequenceStore> store_;
};

class FencedBackend final : public Backend {
  template <class Operation>
  auto inside(Operation operation) {
    const OpenFence open(*memory_);
    return operation();
  }

 public:
  FencedBackend(std::unique_ptr<FencedMemory> memory, std::unique_ptr<Backend> cpu)
      : memory_(std::move(memory)), cpu_(std::move(cpu)), capabilities_(cpu_->capabilities()) {
    capabilities_.name = "fenced";
  }

  const Capabilities& capabilities() const override { return capabilities_; }
  int threads() const override { return cpu_->threads(); }
  const std::string& isa() const override { return cpu_->isa(); }

  // A copy behind the fence, as a device would upload it.
  Status load(WeightView& weight, WeightRole role) override {
    const OpenFence open(*memory_);
    const std::size_t bytes = weight.row_bytes() * static_cast<std::size_t>(weight.rows);
    auto buffer = OwnedBuffer::create(*memory_, bytes);
    if (!buffer) return tl::unexpected(buffer.error());
    std::memcpy(buffer->data(), weight.data, bytes);
    weight.data = buffer->data();
    weights_.push_back(std::move(*buffer));
    return cpu_->load(weight, role);
  }
  Status load_random(WeightView& weight, WeightRole role, std::uint64_t seed) override {
    const OpenFence open(*memory_);
    return cpu_->load_random(weight, role, seed);
  }
  Activations make_activations(int columns, StepRows rows) override { return cpu_->make_activations(columns, rows); }
  std::unique_ptr<SequenceStore> make_sequence(const SequenceShape& shape, ResolvedRetention resolved) override {
    return std::make_unique<FencedStore>(*memory_, cpu_->make_sequence(shape, std::move(resolved)));
  }

  Status begin(const Step& step, const ModelShape& shape) override try {
    spans_.assign(step.spans.begin(), step.spans.end());
    for (Span& span : spans_) span.store = static_cast<FencedStore*>(span.store)->inner();
    step_ = {step.tokens, spans_, step.wanted};
    return inside([&] { return cpu_->begin(step_, shape); });
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::out_of_memory, "not enough memory for a step");
  }
  void embed(const WeightView& table, float scale, Activations out) override {
    inside([&] { cpu_->embed(table, scale, out); });
  }
  void add_positions(const WeightView& table, int offset, Activations out) override {
    inside([&] { cpu_->add_positions(table, offset, out); });
  }
  void norm(Activations in, const Norm& norm, Activations out) override {
    inside([&] { cpu_->norm(in, norm, out); });
  }
  void matmul(const MatmulArgs& args) override {
    inside([&] { cpu_->matmul(args); });
  }
  void add(Activations in, const Norm* norm, Activations out) override {
    inside([&] { cpu_->add(in, norm, out); });
  }
  void attend(const AttendArgs& args) override {
    inside([&] { cpu_->attend(args); });
  }
  void gather(Activations in, Activations out) override {
    inside([&] { cpu_->gather(in, out); });
  }
  void predict(const PredictArgs& args) override {
    inside([&] { cpu_->predict(args); });
  }
  void end(std::span<Status> outcomes) override {
    inside([&] { cpu_->end(outcomes); });
  }

 private:
  std::unique_ptr<FencedMemory> memory_;  // outlives what lies in it
  std::unique_ptr<Backend> cpu_;
  std::vector<OwnedBuffer> weights_;
  Capabilities capabilities_;
  std::vector<Span> spans_;  // of the step, with the CPU's own stores
  Step step_{};
};

}  // namespace

Result<std::unique_ptr<Backend>> make_fenced_backend(const CpuOptions& options) {
  auto memory = std::make_unique<FencedMemory>();
  auto cpu = make_cpu_backend(options, *memory);
  if (!cpu) return cpu;
  return std::make_unique<FencedBackend>(std::move(memory), std::move(*cpu));
}

}  // namespace a2sf
