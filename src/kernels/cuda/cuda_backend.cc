// The forward pass's operations on an NVIDIA GPU, with activations in float32.
#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "kernels/cuda/attend.h"
#include "kernels/cuda/cuda_store.h"
#include "kernels/cuda/device_logits.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/step_graphs.h"
#include "kernels/cuda/step_upload.h"
#include "kernels/cuda/weights.h"
#include "kernels/host/activations.h"
#include "kernels/span_failures.h"

namespace a2sf {
namespace cuda {
namespace {

// Bytes of scratch that attention may take so that layers need not wait for each other's scores.
constexpr std::size_t kMostScratch = std::size_t{512} << 20;

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(std::unique_ptr<Device> device)
      : device_(std::move(device)),
        queue_(device_->queue()),
        weights_(*device_),
        activations_(device_->memory()),
        upload_(*device_),
        logits_(*device_) {}

  const Capabilities& capabilities() const override { return capabilities_; }
  int threads() const override { return 1; }
  const std::string& isa() const override { return device_->architecture(); }
  std::uint64_t free_memory() const override { return device_->memory().free_bytes(); }

  Status load(WeightView& weight, WeightRole) override { return weights_.load(weight); }
  Status load_random(WeightView& weight, WeightRole role, std::uint64_t seed) override {
    return weights_.load_random(weight, role, seed);
  }
  Activations make_activations(int columns, StepRows rows) override { return activations_.make(columns, rows); }
  std::unique_ptr<SequenceStore> make_sequence(const SequenceShape& shape, ResolvedRetention resolved) override {
    return std::make_unique<CudaStore>(*device_, shape, std::move(resolved));
  }

  Status begin(const Step& step, const ModelShape& shape) override try {
    if (!trouble_) return trouble_;
    if (auto room = make_room(step, shape); !room) return room;
    step_ = &step;
    failures_.begin(step);
    note(upload_.enqueue(step), "copying a step");
    for (const Span& span : step.spans) store(span).advance(span.rows);
    records_ = trouble_ && kind_.spans == rows();
    if (records_) {
      note(graphs_.begin(kind_, queue_.recording), "recording a step");
      queue_.stream = queue_.recording;
    }
    enqueue("rotations", [&] { return rotate_positions(); });
    if (!trouble_ && records_) run_recorded();
    return trouble_;
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::out_of_memory, "not enough memory for a step");
  }
  void embed(const WeightView& table, float scale, Activations out) override {
    enqueue("looking up embeddings", [&] {
      return look_up({DeviceWeights::of(table), upload_.tokens(), 0, scale, false}, rows(), data(out), stream());
    });
  }
  void add_positions(const WeightView& table, int offset, Activations out) override {
    enqueue("looking up positions", [&] {
      return look_up({DeviceWeights::of(table), upload_.positions(), offset, 1, true}, rows(), data(out), stream());
    });
  }
  void norm(Activations in, const Norm& norm, Activations out) override {
    enqueue("a norm",
            [&] { return norm_rows(data(in), DeviceWeights::of(norm), in.columns, count(in), data(out), stream()); });
  }
  void matmul(const MatmulArgs& args) override {
    ProductsLaunch launch = products_of(args.in, args.norm);
    for (const Product& product : args.products) {
      launch.products[launch.product_count++] = {DeviceWeights::of(*product.weight),
                                                 DeviceWeights::floats(product.bias), data(product.out), product.add};
    }
    if (args.gate) {
      launch.has_gate = true;
      launch.function = args.gate->function;
      launch.gated = data(args.gate->out);
    }
    enqueue("a product", [&] { return multiply(launch, queue()); });
  }
  void add(Activations in, const Norm* norm, Activations out) override {
    enqueue("a sum", [&] { return add_rows(data(in), norm_of(norm), in.columns, count(in), data(out), stream()); });
  }
  void attend(const AttendArgs& args) override {
    enqueue(
        "attention", [&] { return cuda::attend(attention_of(args), queue()); }, args.layer);
  }
  void gather(Activations in, Activations out) override {
    if (count(out) == 0) return;
    enqueue("gathering rows",
            [&] { return cuda::gather(data(in), upload_.wanted(), in.columns, count(out), data(out), queue()); });
  }
  void predict(const PredictArgs& args) override {
    find_scores();
    ProductsLaunch head = products_of(args.in, args.norm);
    head.products[head.product_count++] = {DeviceWeights::of(*args.head), nullptr, logits_.rows(), false};
    enqueue("the logits", [&] {
      const auto code = multiply(head, queue());
      return code == cudaSuccess ? logits_.finish(count(args.in), args.softcap, queue()) : code;
    });
  }
  void end(std::span<Status> outcomes) override {
    find_scores();
    if (attention_.scores_wait) enqueue("scores", [&] { return join(); });
    if (records_) run_recorded();
    const std::size_t found = step_->spans.size() * sizeof(DeviceFailure);
    note(cudaMemcpyAsync(found_.data(), upload_.failures(), found, cudaMemcpyDeviceToHost, stream()), "a step");
    if (!step_->wanted.empty()) note(logits_.download(upload_), "the logits");
    note(cudaStreamSynchronize(stream()), "a step");
    if (trouble_) report_failures();
    if (trouble_ && !step_->wanted.empty()) note(logits_.deliver(failures_), "the logits");
    if (!trouble_) {
      std::fill(outcomes.begin(), outcomes.end(), trouble_);
      return;
    }
    failures_.end(outcomes);
  }

 private:
  static CudaStore& store(const Span& span) { return static_cast<CudaStore&>(*span.store); }
  static DeviceNorm norm_of(const Norm* norm) { return norm == nullptr ? DeviceNorm{} : DeviceWeights::of(*norm); }
  cudaStream_t stream() const { return queue_.stream; }
  const Queue& queue() const { return queue_; }
  int rows() const { return static_cast<int>(step_->tokens.size()); }
  int count(Activations rows) const { return activations_.count(rows); }
  float* data(Activations rows) const { return activations_.rows(rows).data; }

  // What of this step is not known already; nothing after an error.
  template <class Launch>
  void enqueue(const char* doing, Launch launch, int layer = -1) {
    if (trouble_ && !(records_ && graphs_.is_known())) note(launch(), doing, layer);
  }

  // The first error stays: the GPU computes nothing after one.
  void note(cudaError_t code, const char* doing, int layer = -1) {
    if (code == cudaSuccess || !trouble_) return;
    trouble_ = checked(code, layer < 0 ? doing : fmt::format("{} of layer {}", doing, layer));
  }

  Status make_room(const Step& step, const ModelShape& shape) {
    if (auto room = upload_ropes(shape.ropes); !room) return room;
    if (auto room = activations_.begin(step); !room) return room;
    if (auto room = upload_.reserve(step); !room) return room;
    kind_ = {static_cast<int>(step.spans.size()), static_cast<int>(step.wanted.size()), 0, {}};
    int most_rows = 0;
    for (const Span& span : step.spans) {
      // Whole chunks, so that what attention works in is not allocated anew with every token.
      const std::int64_t most = round_up(store(span).most_used(span.rows), kChunk);
      kind_.most_slots = std::max(kind_.most_slots, static_cast<int>(most));
      store(span).note_heads(kind_.heads);
      most_rows = std::max(most_rows, span.rows);
    }
    const SequenceShape& of_model = store(step.spans.front()).shape();
    layers_ = of_model.layers;
    attention_ = {};
    attention_.span_count = kind_.spans;
    attention_.heads = of_model.heads;
    attention_.kv_heads = of_model.kv_heads;
    attention_.head_dim = of_model.head_dim;
    attention_.most_slots = kind_.most_slots;
    attention_.most_rows = most_rows;
    attention_.heads_are = kind_.heads;
    attention_.scores_wait = kind_.spans == static_cast<int>(step.tokens.size()) && kind_.heads.scoring &&
                             attend_scratch_floats(attention_, layers_) * sizeof(float) <= kMostScratch;
    scores_wait_ = attention_.scores_wait;
    const std::size_t scratch = attend_scratch_floats(attention_, attention_.scores_wait ? layers_ : 1) * sizeof(float);
    if (auto room = reserve(attention_scratch_, device_->memory(), scratch); !room) return room;
    const std::size_t arrivals = sizeof(int) * static_cast<std::size_t>(kind_.spans * of_model.kv_heads * layers_);
    if (auto room = reserve(arrivals_, device_->memory(), arrivals); !room) return room;
    const std::size_t prepared = step.tokens.size() * prepared_bytes(activations_.widest());
    if (auto room = reserve(prepared_, device_->memory(), prepared); !room) return room;
    std::size_t pairs = 0;
    for (const DeviceRope& rope : ropes_) pairs += static_cast<std::size_t>(rope.pairs);
    const std::size_t rotations = step.tokens.size() * pairs * sizeof(float2);
    if (auto room = reserve(rotations_, device_->memory(), rotations); !room) return room;
    if (auto room = logits_.reserve(step, upload_.pick_count(), shape.vocabulary); !room) return room;
    if (auto room = found_.reserve(step.spans.size() * sizeof(DeviceFailure)); !room) return room;
    attention_.spans = upload_.spans();
    attention_.failures = upload_.failures();
    attention_.scratch = reinterpret_cast<float*>(attention_scratch_.data());
    attention_.arrivals = reinterpret_cast<int*>(arrivals_.data());
    graphs_.use({upload_.tokens(), activations_.scratch(1).data, rotations_.data(), prepared_.data(),
                 attention_scratch_.data(), arrivals_.data(), logits_.rows()});
    return {};
  }

  Status upload_ropes(std::span<const RopeTable> ropes) {
    if (!ropes_.empty()) return {};
    std::vector<double> angles;
    for (const RopeTable& rope : ropes) angles.insert(angles.end(), rope.angles.begin(), rope.angles.end());
    if (auto room = reserve(angles_, device_->memory(), angles.size() * sizeof(double) + 1); !room) return room;
    const cudaError_t code =
        cudaMemcpy(angles_.data(), angles.data(), angles.size() * sizeof(double), cudaMemcpyHostToDevice);
    if (auto copied = checked(code, "copying rotations"); !copied) return copied;
    auto* next = reinterpret_cast<const double*>(angles_.data());
    std::vector<DeviceRope> uploaded;
    for (const RopeTable& rope : ropes) {
      uploaded.push_back({next, static_cast<int>(rope.angles.size()), rope.magnitude, rope.interleaved});
      next += rope.angles.size();
    }
    ropes_ = std::move(uploaded);
    return {};
  }

  // Products of these rows, of which there are none yet.
  ProductsLaunch products_of(Activations in, const Norm* norm) const {
    ProductsLaunch launch{};
    launch.in = data(in);
    launch.norm = norm_of(norm);
    launch.columns = in.columns;
    launch.count = count(in);
    launch.prepared = prepared_.data();
    return launch;
  }

  // [row][pair] of one of the model's tables.
  float2* rotations(std::size_t rope) const {
    auto* next = reinterpret_cast<float2*>(rotations_.data());
    for (std::size_t i = 0; i < rope; ++i) next += static_cast<std::int64_t>(rows()) * ropes_[i].pairs;
    return next;
  }
  cudaError_t rotate_positions() const {
    cudaError_t code = cudaSuccess;
    for (std::size_t i = 0; code == cudaSuccess && i < ropes_.size(); ++i)
      code = find_rotations(ropes_[i], upload_.positions(), rows(), rotations(i), stream());
    return code;
  }

  AttendLaunch attention_of(const AttendArgs& args) const {
    const auto rope = static_cast<std::size_t>(args.rope);
    AttendLaunch launch = attention_;
    launch.layer = args.layer;
    launch.scale = args.scale;
    launch.rope = ropes_[rope];
    launch.rotations = rotations(rope);
    launch.q_norm = norm_of(args.q_norm);
    launch.k_norm = norm_of(args.k_norm);
    launch.q = data(args.q);
    launch.k = data(args.k);
    launch.v = data(args.v);
    launch.out = data(args.out);
    return launch;
  }

  // Those that wait for it, if there are any: beside the product that makes the logits, the longest of a step.
  void find_scores() {
    if (!scores_wait_) return;
    scores_wait_ = false;
    enqueue("scores", [&] { return score_layers(attention_, layers_, queue()); });
  }

  void run_recorded() {
    queue_.stream = device_->stream();
    if (trouble_) {
      note(graphs_.launch(queue_.recording, stream()), "a step");
    } else {
      graphs_.abandon(queue_.recording);
    }
    records_ = false;
  }

  // What was done aside is done.
  cudaError_t join() const {
    const auto code = cudaEventRecord(queue().joined, queue().aside);
    return code == cudaSuccess ? cudaStreamWaitEvent(stream(), queue().joined) : code;
  }

  void report_failures() {
    const auto* const found = reinterpret_cast<const DeviceFailure*>(found_.data());
    for (const Span& span : step_->spans) {
      const DeviceFailure& failure = found[span.number];
      if (failure.cause != 0)
        failures_.report(span, static_cast<FailureCause>(failure.cause - 1), failure.position, failure.layer,
                         failure.kv_head);
    }
  }

  std::unique_ptr<Device> device_;
  Queue queue_;  // its stream is the recording one while a step is recorded
  DeviceWeights weights_;
  HostActivations activations_;
  StepUpload upload_;
  SpanFailures failures_;
  Status trouble_;
  const Step* step_ = nullptr;
  std::vector<DeviceRope> ropes_;
  OwnedBuffer angles_;     // of all ropes
  OwnedBuffer rotations_;  // [rope][row][pair]
  OwnedBuffer prepared_;   // inputs of a product
  OwnedBuffer attention_scratch_, arrivals_;
  AttendLaunch attention_{};  // what is the same for all layers of a step
  int layers_ = 0;
  bool scores_wait_ = false;
  DeviceLogits logits_;
  PinnedBuffer found_;  // the failures of the step
  StepKind kind_{};
  StepGraphs graphs_;
  bool records_ = false;  // the step is one that graphs_ keeps
  Capabilities capabilities_{.name = "cuda",
                             .kv_types = {KvType::f16, KvType::f32},
                             .modes = {RetentionMode::all, RetentionMode::score, RetentionMode::oracle},
                             .whole_prompt = true,
                             .power = true,
                             .value_weight = true,
                             .token_classes = false,
                             .threshold = true,
                             .cold_tier = false,
                             .most_rows = 4096,
                             .exact_bytes = true};
};

}  // namespace
}  // namespace cuda

Result<std::unique_ptr<Backend>> make_cuda_backend() {
  auto device = cuda::Device::open();
  if (!device) return tl::unexpected(device.error());
  return std::make_unique<cuda::CudaBackend>(std::move(*device));
}

}  // namespace a2sf
