#include <fmt/format.h>
#include <ggml-cpu.h>

#include <chrono>
#include <cstdlib>
#include <new>
#include <system_error>

#include "core/cores.h"
#include "core/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/activation_kernels.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/rate_kernels.h"
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
  CpuBackend(int threads, std::string isa, const cpu::RowKernels& kernels)
      : pool_(threads),
        isa_(std::move(isa)),
        kernels_(kernels),
        activate_(cpu::activation_kernel(isa_)),
        matmul_(pool_, cpu::panel_kernels(isa_)),
        attention_(pool_, kernels, failures_) {}

  Memory& memory() override { return host_memory(); }
  int threads() const override { return pool_.threads(); }
  const std::string& isa() const override { return isa_; }

  std::unique_ptr<SequenceStore> make_sequence(const SequenceShape& shape, ResolvedRetention resolved) override {
    return std::make_unique<HostStore>(host_memory(), shape, std::move(resolved));
  }
  Status load(WeightView& matrix) override { return matmul_.load(matrix); }
  Status begin(const Step& step, const ModelShape& shape) override try {
    step_ = &step;
    failures_.begin(step);
    attention_.begin(step, shape);
    matmul_.reserve(rows(), shape.widest);
    embedding_.resize(static_cast<std::size_t>(shape.widest));
    return {};
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::out_of_memory, fmt::format("not enough memory for a step of {} tokens", rows()));
  }
  void embed(const WeightView& table, float scale, Activations out) override {
    pool_.run(rows(), [&](int row, int) {
      embed_row(table, step_->tokens[static_cast<std::size_t>(row)], scale, out.row(row));
    });
  }
  void add_positions(const WeightView& table, int offset, Activations out) override {
    for (const Span& span : step_->spans) add_positions_of(span, table, offset, embedding_, out);
  }
  void norm(Activations in, const Norm& norm, int count, Activations out) override {
    const cpu::NormValues values{norm.kind == NormKind::layer, norm.epsilon, floats(norm.weight),
                                 norm.bias ? floats(norm.bias) : nullptr};
    pool_.run(count, [&](int row, int) { kernels_.norm(values, in.row(row), in.columns, out.row(row)); });
  }
  void matmul(Activations in, int count, std::span<const Product> products) override {
    const Stopwatch watch(seconds_.matmul);
    matmul_.run(in, count, products);
  }
  void activate(Activation activation, Activations gate, Activations up) override {
    pool_.run(rows(), [&](int row, int) {
      activate_(activation, gate.row(row), up.data == nullptr ? nullptr : up.row(row), gate.columns);
    });
  }
  void add(Activations in, int count, Activations out) override {
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(count) * in.columns; ++i) out.data[i] += in.data[i];
  }
  void softcap(Activations logits, int count, float most) override {
    pool_.run(count, [&](int row, int) { softcap_row(logits.row(row), most, logits.columns); });
  }
  void attend(const AttendArgs& args) override {
    const Stopwatch watch(seconds_.attend);
    attention_.attend(args);
  }
  void gather(Activations in, std::span<const int> wanted, Activations out) override { gather_rows(in, wanted, out); }
  void check_logits(Activations logits, std::span<const int> wanted) override {
    pool_.run(static_cast<int>(wanted.size()), [&](int i, int) {
      if (!kernels_.finite(logits.row(i), logits.columns)) failures_.report_logits(wanted[static_cast<std::size_t>(i)]);
    });
  }
  void end(std::span<Status> outcomes) override { failures_.end(outcomes); }
  OperationSeconds seconds() const override { return seconds_; }
  Result<MachineRates> measure_rates() override {
    const cpu::RateKernels* kernels = cpu::rate_kernels(isa_);
    return kernels == nullptr ? Backend::measure_rates() : cpu::measure_rates(pool_, *kernels);
  }

 private:
  int rows() const { return static_cast<int>(step_->tokens.size()); }

  ThreadPool pool_;
  std::string isa_;
  const cpu::RowKernels& kernels_;
  cpu::ActivationKernel activate_;
  cpu::Matmul matmul_;
  SpanFailures failures_;
  cpu::Attention attention_;
  std::vector<float> embedding_;  // room for one
  const Step* step_ = nullptr;
  OperationSeconds seconds_;
};

}  // namespace

Result<std::unique_ptr<Backend>> make_cpu_backend(int threads, const std::string& isa) {
  const auto available = cpu::supported_isas();
  if (ggml_cpu_has_avx2() != 0 && __builtin_cpu_supports("avx2") == 0)
    return fail(ErrorKind::unsupported, "this CPU has no AVX2, which the libllama of this build needs");
  const char* forced = std::getenv("A2SF_ISA");
  const std::string wanted = !isa.empty() ? isa : forced != nullptr && *forced != '\0' ? forced : available.front();
  const cpu::RowKernels* kernels = cpu::find_row_kernels(wanted);
  if (kernels == nullptr) {
    std::string names;
    for (const std::string& name : available) names += (names.empty() ? "" : ", ") + name;
    return fail(ErrorKind::unsupported,
                "instruction set '" + wanted + "' is not one this machine runs; it runs " + names);
  }
  if (threads < 0 || threads > 1024)
    return fail(ErrorKind::bad_input, fmt::format("{} threads; give 1 to 1024, or 0 for all cores", threads));
  if (threads == 0) threads = usable_cores();
  ggml_cpu_init();
  try {
    return std::make_unique<CpuBackend>(threads, wanted, *kernels);
  } catch (const std::system_error& error) {
    return fail(ErrorKind::io, fmt::format("cannot start {} threads: {}; use fewer", threads, error.code().message()));
  }
}

}  // namespace a2sf
