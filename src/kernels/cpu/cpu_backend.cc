#include <fmt/format.h>
#include <ggml-cpu.h>

#include <cstdlib>
#include <thread>

#include "core/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/attend.h"
#include "kernels/cpu/matmul.h"
#include "kernels/rows.h"

namespace a2sf {
namespace {

class CpuBackend final : public Backend {
 public:
  CpuBackend(int threads, std::string isa, const cpu::RowKernels& kernels)
      : pool_(threads),
        isa_(std::move(isa)),
        kernels_(kernels),
        matmul_(pool_, cpu::panel_kernels(isa_)),
        attention_(pool_, kernels) {}

  Memory& memory() override { return host_memory(); }
  int threads() const override { return pool_.threads(); }
  const std::string& isa() const override { return isa_; }

  Status load(WeightView& matrix) override { return matmul_.load(matrix); }
  Status begin(const Step& step, const RopeTable& rope) override {
    step_ = &step;
    attention_.begin(step, rope);
    return {};
  }
  void embed(const WeightView& table, Activations out) override {
    pool_.run(rows(),
              [&](int row, int) { dequantise_row(table, step_->tokens[static_cast<std::size_t>(row)], out.row(row)); });
  }
  void norm(Activations in, const WeightView& weight, float epsilon, int count, Activations out) override {
    const auto* factors = reinterpret_cast<const float*>(weight.data);
    pool_.run(count, [&](int row, int) { rms_norm_row(in.row(row), factors, epsilon, in.columns, out.row(row)); });
  }
  void matmul(Activations in, int count, std::span<const Product> products) override {
    matmul_.run(in, count, products);
  }
  void activate(Activations gate, Activations up) override {
    pool_.run(rows(), [&](int row, int) { kernels_.silu_multiply(gate.row(row), up.row(row), gate.columns); });
  }
  void attend(const AttendArgs& args) override { attention_.attend(args); }
  void gather(Activations in, std::span<const int> wanted, Activations out) override { gather_rows(in, wanted, out); }
  Status end() override { return attention_.status(); }

 private:
  int rows() const { return static_cast<int>(step_->tokens.size()); }

  ThreadPool pool_;
  std::string isa_;
  const cpu::RowKernels& kernels_;
  cpu::Matmul matmul_;
  cpu::Attention attention_;
  const Step* step_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<Backend>> make_cpu_backend(int threads, const std::string& isa) {
  const auto available = cpu::supported_isas();
  if (available.empty()) return fail(ErrorKind::unsupported, "this CPU has no AVX2, which a2sf needs");
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
  if (threads == 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  ggml_cpu_init();
  return std::make_unique<CpuBackend>(threads, wanted, *kernels);
}

}  // namespace a2sf
