// A model in memory: weights of a GGUF file, the backend that computes with them, and facts about both.
#pragma once

#include <a2sf/result.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace a2sf {

struct ModelOptions {
  int threads = 0;  // 0: as many as the process may keep busy, by its affinity and its control group
  // "cpu"; "reference": the plain C++ definition, slow; "fenced": for tests, the CPU with memory that nothing else can
  // touch.
  std::string device = "cpu";
  bool repack = true;  // regroup weights for speed in memory of their own; false: use them as the file is mapped
  std::string isa;  // "avx512bf16", "avx512", "avx2" or "portable"; empty: A2SF_ISA from the environment, else the best
};

struct TensorInfo {
  std::string name, type;           // type as ggml names it: "q4_1", "f32"
  std::vector<std::int64_t> shape;  // innermost first, as in the file
  std::uint64_t bytes;
};

// Facts that any GGUF file has. What it does not say is empty.
struct FileInfo {
  std::string path, name, architecture, chat_template;
  // FNV-1a, 64 bits, of the file's size and its first and last MiB, as 16 hex digits: of the file that was opened,
  // whatever lies under its path by now. Tells files apart at once; no proof against forgery.
  std::string hash;
  std::uint64_t parameters, weight_bytes, file_bytes;
  std::vector<TensorInfo> tensors;
};

// Facts of an architecture that is supported. Sizes are counts of elements.
struct ModelInfo : FileInfo {
  int layers, heads, kv_heads, head_dim, embedding, feed_forward, vocabulary;
  std::int64_t context;            // tokens it was trained on
  double norm_epsilon, rope_base;  // rope_base 0: positions are learned
  std::vector<int> windows;        // [layer]: tokens of its sliding window, 0: it sees all
};

struct Inspection {
  FileInfo file;
  Result<ModelInfo> model;  // or why loading it fails; the values of its weights are not looked at
};

// Reads the facts alone, whatever the size of the weights. Takes any GGUF file.
Result<Inspection> inspect(const std::string& path);

// The facts of a model that Model::random() would make. `path` and `name` are the shape, there is no hash. Fails as
// that does, but for memory.
Result<ModelInfo> inspect_shape(const std::string& shape);

// Immutable after loading and shared by sessions. Steps of different sessions on one model are computed one after the
// other.
//
// The file stays mapped while the model lives and must not change meanwhile: one that is cut short ends the process
// with SIGBUS, one that is overwritten computes with other weights. To replace it, write a new file beside it and
// rename that over it: the model keeps the old one until it is destroyed.
class Model {
 public:
  static Result<std::shared_ptr<const Model>> load(const std::string& path, const ModelOptions& options = {});
  // A model in the shape of a known one, with random weights: it says nothing, but takes its time and memory. `shape`
  // is "NAME:TYPE", as in "llama-3-8b:q4_0": the type of all matrices as ggml names it; an error lists what there is.
  // The weights follow from the shape and the seed alone. Fails where they do not fit into the memory that is
  // available.
  static Result<std::shared_ptr<const Model>> random(const std::string& shape, const ModelOptions& options = {},
                                                     std::uint64_t seed = 0);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelInfo& info() const;
  int threads() const;
  const std::string& isa() const;  // of the kernels in use: "avx512bf16", "avx512", "avx2", "portable", "reference"

  struct Parts;  // private to the library
  const Parts& parts() const { return *parts_; }

 private:
  explicit Model(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

const char* version();

}  // namespace a2sf
