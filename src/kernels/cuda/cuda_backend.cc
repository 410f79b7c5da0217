// The forward pass's operations on an NVIDIA GPU: plain kernels, float32 activations.
#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "kernels/cuda/attend.h"
#include "kernels/cuda/cuda_store.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/step_upload.h"
#include "kernels/cuda/weights.h"
#include "kernels/host/activations.h"
#include "kernels/logits.h"
#include "kernels/span_failures.h"

namespace a2sf {
namespace cuda {
namespace {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(std::unique_ptr<Device> device)
      : device_(std::move(device)), weights_(*device_), activations_(device_->memory()), upload_(*device_) {}

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
    return trouble_;
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::out_of_memory, "not enough memory for a step");
  }
  void embed(const WeightView& table, float scale, Activations out) override {
    note(look_up({DeviceWeights::of(table), upload_.tokens(), 0, scale, false}, rows(), data(out), stream()),
         "looking up embeddings");
  }
  void add_positions(const WeightView& table, int offset, Activations out) override {
    note(look_up({DeviceWeights::of(table), upload_.positions(), offset, 1, true}, rows(), data(out), stream()),
         "looking up positions");
  }
  void norm(Activations in, const Norm& norm, Activations out) override {
    note(norm_rows(data(in), DeviceWeights::of(norm), in.columns, count(in), data(out), stream()), "a norm");
  }
  void matmul(const MatmulArgs& args) override {
    const float* in = normed(args.in, args.norm);
    for (const Product& product : args.products) {
      note(multiply({DeviceWeights::of(*product.weight), DeviceWeights::floats(product.bias), in, data(product.out),
                     count(args.in), product.add},
                    stream()),
           "a product");
    }
    if (!args.gate) return;
    const float* up = args.products.size() > 1 ? data(args.products[1].out) : nullptr;
    note(activate(args.gate->function, data(args.products[0].out), up, floats(args.gate->out), data(args.gate->out),
                  stream()),
         "an activation");
  }
  void add(Activations in, const Norm* norm, Activations out) override {
    note(add_rows(normed(in, norm), floats(in), data(out), stream()), "a sum");
  }
  void attend(const AttendArgs& args) override {
    const auto norm_of = [](const Norm* norm) { return norm == nullptr ? DeviceNorm{} : DeviceWeights::of(*norm); };
    const AttendLaunch launch{upload_.spans(),
                              upload_.failures(),
                              static_cast<int>(step_->spans.size()),
                              args.layer,
                              args.heads,
                              args.kv_heads,
                              args.head_dim,
                              args.window,
                              args.scale,
                              ropes_[static_cast<std::size_t>(args.rope)],
                              norm_of(args.q_norm),
                              norm_of(args.k_norm),
                              data(args.q),
                              data(args.k),
                              data(args.v),
                              data(args.out),
                              reinterpret_cast<float*>(attention_scratch_.data()),
                              most_slots_};
    note(attend_split(launch, most_rows_, stream()), "attention", args.layer);
    if (has_oracles_) note(attend_oracles(launch, stream()), "attention", args.layer);
  }
  void gather(Activations in, Activations out) override {
    if (count(out) == 0) return;
    note(cuda::gather(data(in), upload_.wanted(), in.columns, count(out), data(out), stream()), "gathering rows");
  }
  void predict(const PredictArgs& args) override {
    auto* const logits = reinterpret_cast<float*>(logits_.data());
    note(multiply({DeviceWeights::of(*args.head), nullptr, normed(args.in, args.norm), logits, count(args.in), false},
                  stream()),
         "the logits");
    note(finish_logits(logits, count(args.in), vocabulary_, args.softcap,
                       reinterpret_cast<RowOfLogits*>(logits_.data() + rows_of_logits_), stream()),
         "the logits");
    if (upload_.pick_count() > 0)
      note(pick(logits, vocabulary_, upload_.picks(), upload_.pick_count(),
                reinterpret_cast<float*>(logits_.data() + picked_), stream()),
           "the logits");
    download(args);
  }
  void end(std::span<Status> outcomes) override {
    note(cudaMemcpyAsync(answers_.data(), upload_.failures(), step_->spans.size() * sizeof(DeviceFailure),
                         cudaMemcpyDeviceToHost, stream()),
         "a step");
    note(cudaStreamSynchronize(stream()), "a step");
    if (!trouble_) {
      std::fill(outcomes.begin(), outcomes.end(), trouble_);
      return;
    }
    report_failures();
    if (!step_->wanted.empty()) deliver();
    failures_.end(outcomes);
  }

 private:
  static CudaStore& store(const Span& span) { return static_cast<CudaStore&>(*span.store); }
  cudaStream_t stream() const { return device_->stream(); }
  int rows() const { return static_cast<int>(step_->tokens.size()); }
  int count(Activations rows) const { return activations_.count(rows); }
  float* data(Activations rows) const { return activations_.rows(rows).data; }
  std::int64_t floats(Activations rows) const { return std::int64_t{count(rows)} * rows.columns; }

  // The first error stays: the GPU computes nothing after one.
  void note(cudaError_t code, const char* doing, int layer = -1) {
    if (code == cudaSuccess || !trouble_) return;
    trouble_ = checked(code, layer < 0 ? doing : fmt::format("{} of layer {}", doing, layer));
  }

  Status make_room(const Step& step, const ModelShape& shape) {
    if (auto room = upload_ropes(shape.ropes); !room) return room;
    if (auto room = activations_.begin(step); !room) return room;
    if (auto room = upload_.reserve(step); !room) return room;
    most_slots_ = most_rows_ = 0;
    has_oracles_ = false;
    for (const Span& span : step.spans) {
      // Whole chunks, so that what attention works in is not allocated anew with every token.
      most_slots_ = std::max(most_slots_, static_cast<int>(round_up(store(span).most_used(span.rows), kChunk)));
      most_rows_ = std::max(most_rows_, span.rows);
      has_oracles_ = has_oracles_ || store(span).has_oracles();
    }
    const SequenceShape& of_model = store(step.spans.front()).shape();
    AttendLaunch launch{};
    launch.span_count = static_cast<int>(step.spans.size());
    launch.heads = of_model.heads;
    launch.kv_heads = of_model.kv_heads;
    launch.head_dim = of_model.head_dim;
    launch.most_slots = most_slots_;
    const std::size_t scratch = attend_scratch_floats(launch) * sizeof(float);
    if (auto room = reserve(attention_scratch_, device_->memory(), scratch); !room) return room;
    vocabulary_ = shape.vocabulary;
    row_.resize(static_cast<std::size_t>(vocabulary_));
    const std::size_t wanted = step.wanted.size();
    rows_of_logits_ = (wanted * static_cast<std::size_t>(vocabulary_) * sizeof(float) + 15) / 16 * 16;
    picked_ = rows_of_logits_ + wanted * sizeof(RowOfLogits);
    const std::size_t answers = static_cast<std::size_t>(upload_.pick_count()) * sizeof(float);
    if (auto room = reserve(logits_, device_->memory(), picked_ + answers); !room) return room;
    of_logits_ = (step.spans.size() * sizeof(DeviceFailure) + 15) / 16 * 16;
    return answers_.reserve(of_logits_ + wanted * sizeof(RowOfLogits) + answers);
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

  // What an operation reads that takes the norm of its input, where there is one.
  const float* normed(Activations in, const Norm* norm) {
    if (norm == nullptr) return data(in);
    float* const out = activations_.scratch(in.columns).data;
    note(norm_rows(data(in), DeviceWeights::of(*norm), in.columns, count(in), out, stream()), "a norm");
    return out;
  }

  // Enqueues the way of all answers to the host; the whole rows go straight to who wants them.
  void download(const PredictArgs& args) {
    const std::size_t answers = static_cast<std::size_t>(count(args.in)) * sizeof(RowOfLogits) +
                                static_cast<std::size_t>(upload_.pick_count()) * sizeof(float);
    note(cudaMemcpyAsync(answers_.data() + of_logits_, logits_.data() + rows_of_logits_, answers,
                         cudaMemcpyDeviceToHost, stream()),
         "the logits");
    for (std::size_t i = 0; i < step_->wanted.size(); ++i) {
      if (step_->wanted[i].logits != nullptr) read_row(i, step_->wanted[i].logits);
    }
  }
  void read_row(std::size_t index, float* out) {
    const auto bytes = static_cast<std::size_t>(vocabulary_) * sizeof(float);
    note(cudaMemcpyAsync(out, logits_.data() + index * bytes, bytes, cudaMemcpyDeviceToHost, stream()), "the logits");
  }

  void report_failures() {
    const auto* const found = reinterpret_cast<const DeviceFailure*>(answers_.data());
    for (const Span& span : step_->spans) {
      const DeviceFailure& failure = found[span.number];
      if (failure.cause != 0)
        failures_.report(span, static_cast<FailureCause>(failure.cause - 1), failure.position, failure.layer,
                         failure.kv_head);
    }
  }

  void deliver() {
    const auto* const of_rows = reinterpret_cast<const RowOfLogits*>(answers_.data() + of_logits_);
    const auto* picked = reinterpret_cast<const float*>(of_rows + step_->wanted.size());
    for (std::size_t i = 0; i < step_->wanted.size(); ++i) {
      const LogitsQuery& query = step_->wanted[i];
      for (double& log_probability : query.log_probabilities) log_probability = *picked++ - of_rows[i].log_sum;
      if (of_rows[i].is_finite == 0) failures_.report_logits(query.row);
      if (of_rows[i].is_finite == 0 || query.largest.empty()) continue;
      read_row(i, row_.data());
      note(cudaStreamSynchronize(stream()), "the logits");
      answer({.row = query.row, .largest = query.largest}, row_);
    }
  }

  std::unique_ptr<Device> device_;
  DeviceWeights weights_;
  HostActivations activations_;
  StepUpload upload_;
  SpanFailures failures_;
  Status trouble_;
  const Step* step_ = nullptr;
  std::vector<DeviceRope> ropes_;
  OwnedBuffer angles_;  // of all ropes
  OwnedBuffer attention_scratch_;
  int most_slots_ = 0, most_rows_ = 0;  // of the step's spans
  bool has_oracles_ = false;
  int vocabulary_ = 0;
  OwnedBuffer logits_;  // [wanted][vocabulary], then RowOfLogits [wanted], then what was picked
  std::size_t rows_of_logits_ = 0, picked_ = 0;
  PinnedBuffer answers_;  // failures, then as above
  std::size_t of_logits_ = 0;
  std::vector<float> row_;
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
