// What a device must compute for the forward pass. Operations only enqueue; end() waits and reports what went wrong
// with each sequence.
#pragma once

#include <a2sf/session.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/machine_rates.h"
#include "kernels/sequence_store.h"
#include "kernels/weight.h"

namespace a2sf {

// Rows of one sequence in a step: a chunk of its prompt, or one decoded token.
struct Span {
  SequenceStore* store;  // of the backend that runs the step
  int number;            // among the spans of the step
  int first_row, rows;
  std::int64_t first_position;
  bool in_prompt;                           // under block = prompt nothing is evicted in these rows,
  bool prompt_ends;                         // except after the last of them
  std::span<const std::int32_t> token_ids;  // of the sequence, by position; the step's included
};

struct Step {
  std::span<const std::int32_t> tokens;  // one per row
  std::span<const Span> spans;
};

// Activations [rows of the step][columns] in the backend's memory. A view.
struct Activations {
  float* data = nullptr;
  int columns = 0;

  float* row(std::int64_t index) const { return data + index * columns; }
};

enum class NormKind { rms, layer };  // layer: the mean is subtracted first

// x / sqrt(mean(x^2) + epsilon) * weight (+ bias). Empty where a model has no such norm.
struct Norm {
  NormKind kind = NormKind::rms;
  float epsilon = 0;
  WeightView weight, bias;  // f32; the bias may be empty

  explicit operator bool() const { return static_cast<bool>(weight); }
};

enum class Activation { silu, gelu_tanh, gelu_erf, relu };

// out = weight x input (+ bias) (+ out, if add).
struct Product {
  const WeightView* weight;
  const WeightView* bias;  // f32, or nullptr
  Activations out;
  bool add = false;
};

struct RopeTable {
  std::span<const double> angles;  // radians per position, one per rotated pair
  float magnitude = 1;
  bool interleaved = true;  // pairs (2i, 2i + 1); else (i, i + pairs)
};

// What a backend must know of a model to make room for a step.
struct ModelShape {
  std::span<const RopeTable> ropes;  // a model without RoPE gives one table without angles
  int heads;                         // of queries
  int widest;                        // columns of the widest input of a matrix product
};

// Rotate, append, attend over the retained slots, update the scores, evict: one operation (design: section 2 of
// docs/architecture.md). Rows of a span are processed in order within each KV head.
struct AttendArgs {
  int layer;
  int heads, kv_heads, head_dim;
  int window;  // of a sliding-window layer; 0: none
  float scale;
  int rope;                  // of the model's tables
  Activations q, k, v, out;  // q, out: [heads * head_dim]; k, v: [kv_heads * head_dim]
};

// Time spent since the backend was made, by all steps together.
struct OperationSeconds {
  double matmul = 0, attend = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual Memory& memory() = 0;
  virtual int threads() const = 0;
  virtual const std::string& isa() const = 0;

  virtual std::unique_ptr<SequenceStore> make_sequence(const SequenceShape& shape, ResolvedRetention resolved) = 0;

  // Makes the backend's own form of a matrix (repacked, uploaded) where it has one; the backend keeps it.
  virtual Status load(WeightView& matrix) = 0;
  // Makes room for everything the step's operations will need: an error, and nothing has changed. The step and the
  // shape must outlive end().
  virtual Status begin(const Step& step, const ModelShape& shape) = 0;
  virtual void embed(const WeightView& table, float scale, Activations out) = 0;
  // out += the table's row of each token's position, counted from `offset`.
  virtual void add_positions(const WeightView& table, int offset, Activations out) = 0;
  virtual void norm(Activations in, const Norm& norm, int rows, Activations out) = 0;  // in and out may be the same
  virtual void matmul(Activations in, int rows, std::span<const Product> products) = 0;
  // gate = activation(gate), times `up` if it has data.
  virtual void activate(Activation activation, Activations gate, Activations up) = 0;
  virtual void add(Activations in, int rows, Activations out) = 0;     // out += in
  virtual void softcap(Activations logits, int rows, float most) = 0;  // x = most * tanh(x / most)
  virtual void attend(const AttendArgs& args) = 0;
  virtual void gather(Activations in, std::span<const int> rows, Activations out) = 0;
  // A sequence with logits that are not finite fails. Logits of the step's rows `wanted`, ascending.
  virtual void check_logits(Activations logits, std::span<const int> wanted) = 0;
  // Waits. outcomes[span] says why a sequence failed: numbers that are not finite, a hook. Its cache is of no more use;
  // the other sequences are as they would be without it.
  virtual void end(std::span<Status> outcomes) = 0;

  virtual OperationSeconds seconds() const { return {}; }
  virtual Result<MachineRates> measure_rates() {
    return fail(ErrorKind::unsupported, "this device or instruction set has no measure of the machine's best");
  }
};

// `isa`: "avx512bf16", "avx512", "avx2", "portable" or empty for the best. Fails with a line that says what this
// machine has.
Result<std::unique_ptr<Backend>> make_cpu_backend(int threads, const std::string& isa);
std::unique_ptr<Backend> make_reference_backend();

}  // namespace a2sf
