// What a device must compute for the forward pass. Operations only enqueue; end() waits and reports what went wrong
// with each sequence.
#pragma once

#include <a2sf/session.h>
#include <a2sf/text.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/available_memory.h"
#include "core/machine_rates.h"
#include "core/memory.h"
#include "kernels/sequence_store.h"
#include "kernels/weight.h"

namespace a2sf {

// Rows of one sequence in a step: a chunk of its prompt, or one decoded token.
struct Span {
  SequenceStore* store;  // of the backend that runs the step
  int number;            // among the spans of the step
  int first_row, rows;
  std::int64_t first_position;
  bool in_prompt;                           // part of a prompt, in which block = prompt evicts nothing
  bool prompt_ends;                         // but after its last row, which is the last of these
  std::span<const std::int32_t> token_ids;  // of the sequence, by position; the step's included
};

// What is wanted of the logits of one row of a step: any of three, in host memory that is the caller's. Filled by
// end(); of a sequence that failed it is of no use.
struct LogitsQuery {
  int row;                  // of the step
  float* logits = nullptr;  // [vocabulary]: receives the whole row
  std::span<const std::int32_t> tokens = {};
  std::span<double> log_probabilities = {};  // [tokens]: receives theirs
  // Receives the most probable tokens, the best first, of equals the lower id. Entries beyond the vocabulary get -1.
  std::span<TokenProbability> largest = {};
};

struct Step {
  std::span<const std::int32_t> tokens;  // one per row
  std::span<const Span> spans;
  std::span<const LogitsQuery> wanted = {};  // of rows in ascending order, each at most once
};

// The rows of a step that activations have: all of them, or those whose logits are wanted.
enum class StepRows { all, wanted };

// A handle: activations [rows of the step][columns] in memory and of a type that the backend chooses.
struct Activations {
  int id = -1;
  int columns = 0;
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

// What a tensor is there for: rows are looked up in an embedding and in positions, a matrix is multiplied with, a
// vector is a norm or a bias.
enum class WeightRole { embedding, positions, matrix, vector };

// out = weight x input (+ bias) (+ out, if add).
struct Product {
  const WeightView* weight;
  const WeightView* bias;  // f32, or nullptr
  Activations out;
  bool add = false;
};

inline constexpr std::size_t kMostProducts = 3;  // of one input: query, key and value

// out = function(first product) (* second product, where there are two).
struct GateArgs {
  Activation function;
  Activations out;
};

// Products of one input, after its norm and before their activation. Every output is another place than the input.
struct MatmulArgs {
  Activations in;
  const Norm* norm;                   // of the input; nullptr: none
  std::span<const Product> products;  // 1 to kMostProducts
  std::optional<GateArgs> gate = {};
};

// The logits of the rows that the step wants: the head times the norm of the input, then x = softcap * tanh(x /
// softcap) where that is above 0. A sequence with logits that are not finite fails.
struct PredictArgs {
  Activations in;    // of the wanted rows
  const Norm* norm;  // nullptr: none
  const WeightView* head;
  float softcap;
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
  int vocabulary = 0;
};

// Norms of the heads, rotate, append, attend over the retained slots, update the scores, evict: one operation (design:
// section 2 of docs/architecture.md). Rows of a span are processed in order within each KV head. The rows of q and k
// are the operation's own from then on: it may overwrite them.
struct AttendArgs {
  int layer;
  int heads, kv_heads, head_dim;
  int window;  // of a sliding-window layer; 0: none
  float scale;
  int rope;                     // of the model's tables
  Activations q, k, v, out;     // q, out: [heads * head_dim]; k, v: [kv_heads * head_dim]
  const Norm *q_norm, *k_norm;  // of every head; nullptr: none
  Activations residual;         // what the layer read, before its norm: for whoever looks on
};

// What a device can do. A session that needs more is refused.
struct Capabilities {
  std::string name;  // as --device has it
  std::vector<KvType> kv_types;
  std::vector<RetentionMode> modes;
  bool whole_prompt;                                   // block = prompt
  bool power, value_weight, token_classes, threshold;  // options of scores
  bool cold_tier;
  int most_rows;     // of a step
  bool exact_bytes;  // a row's bytes depend on its sequence alone: on no neighbour, chunk or count of threads

  // Whether a sequence of these rules and this format can be had; else one line that says what is missing.
  Status check(const Retention& retention, KvType kv_type) const;
};

// Time spent since the backend was made, by all steps together.
struct OperationSeconds {
  double matmul = 0, attend = 0;
};

// Of one model. Not thread safe: one caller at a time.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual const Capabilities& capabilities() const = 0;
  virtual int threads() const = 0;
  virtual const std::string& isa() const = 0;
  virtual std::uint64_t free_memory() const { return available_memory(); }  // bytes that weights could take

  // Takes a tensor, once for each of its roles. Where the backend makes a form of its own (repacked, uploaded), it
  // keeps that and notes it in `loaded`; where it does not, it reads what is mapped.
  virtual Status load(WeightView& weight, WeightRole role) = 0;
  // Makes random values for a tensor that has none yet, in memory of the backend's own: those of RandomRows.
  virtual Status load_random(WeightView& weight, WeightRole role, std::uint64_t seed) = 0;

  // A place that stays for the life of the backend. Before the first step.
  virtual Activations make_activations(int columns, StepRows rows) = 0;

  virtual std::unique_ptr<SequenceStore> make_sequence(const SequenceShape& shape, ResolvedRetention resolved) = 0;

  // Makes room for everything the step's operations will need: an error, and nothing has changed. The step and the
  // shape must outlive end().
  virtual Status begin(const Step& step, const ModelShape& shape) = 0;
  virtual void embed(const WeightView& table, float scale, Activations out) = 0;
  // out += the table's row of each token's position, counted from `offset`.
  virtual void add_positions(const WeightView& table, int offset, Activations out) = 0;
  virtual void norm(Activations in, const Norm& norm, Activations out) = 0;  // to another place
  virtual void matmul(const MatmulArgs& args) = 0;
  virtual void add(Activations in, const Norm* norm, Activations out) = 0;  // out += in, or its norm
  virtual void attend(const AttendArgs& args) = 0;
  virtual void gather(Activations in, Activations out) = 0;  // the wanted ones of all rows
  virtual void predict(const PredictArgs& args) = 0;
  // Waits. outcomes[span] says why a sequence failed: numbers that are not finite, a hook. Its cache is of no more use;
  // the other sequences are as they would be without it.
  virtual void end(std::span<Status> outcomes) = 0;

  virtual OperationSeconds seconds() const { return {}; }
  virtual Result<MachineRates> measure_rates() {
    return fail(ErrorKind::unsupported, "this device or instruction set has no measure of the machine's best");
  }
};

struct CpuOptions {
  int threads = 0;     // 0: as many as the process may keep busy
  std::string isa;     // "avx512bf16", "avx512", "avx2", "portable" or empty for the best
  bool repack = true;  // regroup matrices for speed in memory of their own; false: use them as they are mapped
};

// Caches, activations and weights of their own are in `memory`, a host's, which must outlive them. Fails with a line
// that says what this machine has.
Result<std::unique_ptr<Backend>> make_cpu_backend(const CpuOptions& options, Memory& memory = host_memory());
std::unique_ptr<Backend> make_reference_backend(Memory& memory = host_memory());
// The CPU behind a fence, for tests: its buffers cannot be read or written but by its own operations.
Result<std::unique_ptr<Backend>> make_fenced_backend(const CpuOptions& options);
// The first NVIDIA GPU that the process may see. Fails with a line that says what is missing: a build with CUDA, a GPU,
// a driver.
Result<std::unique_ptr<Backend>> make_cuda_backend();

}  // namespace a2sf
