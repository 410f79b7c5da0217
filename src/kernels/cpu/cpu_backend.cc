#include <fmt/format.h>
#include <ggml-cpu.h>

#include <chrono>
#include <cstdlib>
#include <new>
#include <system_error>

#include "core/cores.h"
#include "core/thread_pool.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/matmul.h"
#include "kernels/host/capabilities.h"
#include "kernels/logits.h"
#include "kernels/random_weights.h"
#include "kernels/rows.h"
#include "kernels/span_failures.h"

namespace a2sf {
namespace {

// Adds its lifetime to a sum.
class Stopwatch {
 public:
  explicit Stopwatch(double& sum) : sum_(sum) {}
  ~Stopwatch() { sum_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& sum_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

class CpuBackend final : public Backend {
 public:
  CpuBackend(int threads, const CpuOptions& options, cpu::Isa isa, Memory& memory)
      : memory_(memory),
        pool_(threads),
        isa_(cpu::name_of(isa)),
        kernels_(cpu::kernels_of(isa)),
        weights_(memory),
        matmul_(pool_, options.repack ? kernels_.panels : nullptr, memory),
        attention_(pool_, kernels_.rows, failures_),
        activations_(memory),
        logits_(memory, kernels_.rows.log_sum_exp) {}

  const Capabilities& capabilities() const override { return capabilities_; }
  int threads() const override { return pool_.threads(); }
  const std::string& isa() const override { return isa_; }

  Status load(WeightView& weight, WeightRole role) override {
    return role == WeightRole::matrix ? matmul_.load(weight) : Status{};
  }
  Status load_random(WeightView& weight, WeightRole role, std::uint64_t seed) override {
    const RandomRows rows(weight, role, seed);
    return role == WeightRole::matrix ? matmul_.load_random(weight, rows) : make_random(weight, rows, weights_);
  }
  Activations make_activations(int columns, StepRows rows) override { return activations_.make(columns, rows); }
  std::unique_ptr<SequenceStore> make_sequence(const SequenceShape& shape, ResolvedRetention resolved) override {
    return std::make_unique<HostStore>(memory_, shape, std::move(resolved));
  }

  Status begin(const Step& step, const ModelShape& shape) override try {
    step_ = &step;
    failures_.begin(step);
    attention_.begin(step, shape);
    matmul_.reserve(rows(), activations_.widest());
    embedding_.resize(static_cast<std::size_t>(activations_.widest()));
    if (auto room = activations_.begin(step); !room) return room;
    return logits_.begin(step, shape.vocabulary);
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::out_of_memory, fmt::format("not enough memory for a step of {} tokens", rows()));
  }
  void embed(const WeightView& table, float scale, Activations out) override {
    const HostRows x = activations_.rows(out);
    pool_.run(rows(),
              [&](int row, int) { embed_row(table, step_->tokens[static_cast<std::size_t>(row)], scale, x.row(row)); });
  }
  void add_positions(const WeightView& table, int offset, Activations out) override {
    for (const Span& span : step_->spans) add_positions_of(span, table, offset, embedding_, activations_.rows(out));
  }
  void norm(Activations in, const Norm& norm, Activations out) override {
    norm_rows(activations_.rows(in), norm, activations_.count(in), activations_.rows(out));
  }
  void matmul(const MatmulArgs& args) override {
    multiply(normed(args.in, args.norm), activations_.count(args.in), activations_.products(args.products));
    if (args.gate) activate(args);
  }
  void add(Activations in, const Norm* norm, Activations out) override {
    add_rows(normed(in, norm), activations_.count(in), activations_.rows(out));
  }
  void attend(const AttendArgs& args) override {
    const HostAttendArgs host = activations_.attend_args(args);
    const HostRows q = heads_of(host.q, args.head_dim), k = heads_of(host.k, args.head_dim);
    if (args.q_norm != nullptr) norm_rows(q, *args.q_norm, rows() * args.heads, q);
    if (args.k_norm != nullptr) norm_rows(k, *args.k_norm, rows() * args.kv_heads, k);
    const Stopwatch watch(seconds_.attend);
    attention_.attend(host);
  }
  void gather(Activations in, Activations out) override {
    gather_rows(*step_, activations_.rows(in), activations_.rows(out));
  }
  void predict(const PredictArgs& args) override {
    const HostRows logits = logits_.rows();
    const HostProduct head{args.head, nullptr, logits};
    multiply(normed(args.in, args.norm), activations_.count(args.in), {&head, 1});
    pool_.run(activations_.count(args.in), [&](int i, int) {
      if (!kernels_.rows.finite(logits.row(i), logits.columns))
        return failures_.report_logits(step_->wanted[static_cast<std::size_t>(i)].row);
      if (args.softcap > 0) softcap_row(logits.row(i), args.softcap, logits.columns);
      logits_.deliver(i);
    });
  }
  void end(std::span<Status> outcomes) override { failures_.end(outcomes); }
  OperationSeconds seconds() const override { return seconds_; }
  Result<MachineRates> measure_rates() override {
    return kernels_.rates == nullptr ? Backend::measure_rates() : cpu::measure_rates(pool_, *kernels_.rates);
  }

 private:
  int rows() const { return static_cast<int>(step_->tokens.size()); }

  void norm_rows(HostRows in, const Norm& norm, int count, HostRows out) {
    const cpu::NormValues values{norm.kind == NormKind::layer, norm.epsilon, floats(norm.weight),
                                 norm.bias ? floats(norm.bias) : nullptr};
    pool_.run(count, [&](int row, int) { kernels_.rows.norm(values, in.row(row), in.columns, out.row(row)); });
  }
  // What an operation reads that takes the norm of its input, where there is one.
  HostRows normed(Activations in, const Norm* norm) {
    const HostRows rows = activations_.rows(in);
    if (norm == nullptr) return rows;
    const HostRows out = activations_.scratch(rows.columns);
    norm_rows(rows, *norm, activations_.count(in), out);
    return out;
  }
  void multiply(HostRows in, int count, std::span<const HostProduct> products) {
    const Stopwatch watch(seconds_.matmul);
    matmul_.run(in, count, products);
  }
  void activate(const MatmulArgs& args) {
    const HostRows first = activations_.rows(args.products[0].out), out = activations_.rows(args.gate->out);
    const HostRows second = args.products.size() > 1 ? activations_.rows(args.products[1].out) : HostRows{};
    pool_.run(activations_.count(args.in), [&](int row, int) {
      kernels_.activate(args.gate->function, first.row(row), second.data == nullptr ? nullptr : second.row(row),
                        first.columns, out.row(row));
    });
  }

  Memory& memory_;
  ThreadPool pool_;
  std::string isa_;
  cpu::Kernels kernels_;
  WeightMemory weights_;
  cpu::Matmul matmul_;
  SpanFailures failures_;
  cpu::Attention attention_;
  HostActivations activations_;
  HostLogits logits_;
  std::vector<float> embedding_;  // room for one
  const Step* step_ = nullptr;
  OperationSeconds seconds_;
  Capabilities capabilities_ = host_capabilities("cpu");
};

// The one that is asked for, by the options or else by the environment; otherwise the best.
Result<cpu::Isa> choose_isa(const CpuOptions& options) {
  const auto available = cpu::supported_isas();
  const char* forced = std::getenv("A2SF_ISA");
  const std::string wanted = !options.isa.empty() ? options.isa : forced != nullptr ? forced : "";
  if (wanted.empty()) return available.front();
  if (const auto isa = cpu::isa_of(wanted); isa && cpu::is_supported(*isa)) return *isa;
  std::string names;
  for (const cpu::Isa isa : available) names += (names.empty() ? "" : ", ") + cpu::name_of(isa);
  return fail(ErrorKind::unsupported,
              "instruction set '" + wanted + "' is not one this machine runs; it runs " + names);
}

}  // namespace

Result<std::unique_ptr<Backend>> make_cpu_backend(const CpuOptions& options, Memory& memory) {
  int threads = options.threads;
  if (ggml_cpu_has_avx2() != 0 && !cpu::is_supported(cpu::Isa::avx2))
    return fail(ErrorKind::unsupported, "this CPU has no AVX2, which the libllama of this build needs");
  const auto isa = choose_isa(options);
  if (!isa) return tl::unexpected(isa.error());
  if (threads < 0 || threads > 1024)
    return fail(ErrorKind::bad_input, fmt::format("{} threads; give 1 to 1024, or 0 for all cores", threads));
  if (threads == 0) threads = usable_cores();
  ggml_cpu_init();
  try {
    return std::make_unique<CpuBackend>(threads, options, *isa, memory);
  } catch (const std::system_error& error) {
    return fail(ErrorKind::io, fmt::format("cannot start {} threads: {}; use fewer", threads, error.code().message()));
  }
}

}  // namespace a2sf
