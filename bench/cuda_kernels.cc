// a2sf_cuda_kernels [TYPE [attention]]: how long the kernels of a decoded token take on the GPU, and how fast they
// read; those of attention alone, or products of weights of a type as well.
//
// Each row is a graph of many launches in a chain, as a step has them, over weights and caches that do not fit into the
// GPU's cache together; median of 11 replays. Example: a2sf_cuda_kernels q4_0
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <random>

#include "kernels/cuda/attend.h"
#include "kernels/cuda/cuda_store.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/step_upload.h"
#include "kernels/cuda/weights.h"

namespace {

using namespace a2sf;  // NOLINT(google-build-using-namespace): a program of one file

constexpr std::size_t kBeyondCache = std::size_t{400} << 20;  // bytes that no GPU's cache holds
constexpr int kReplays = 11;

void need(cudaError_t code) {
  if (code == cudaSuccess) return;
  fmt::print(stderr, "a2sf_cuda_kernels: {}\n", cudaGetErrorString(code));
  std::exit(1);
}
template <class T>
T need(Result<T> result) {
  if (result) return std::move(*result);
  fmt::print(stderr, "a2sf_cuda_kernels: {}\n", result.error().message);
  std::exit(1);
}
void need(const Status& status) {
  if (status) return;
  fmt::print(stderr, "a2sf_cuda_kernels: {}\n", status.error().message);
  std::exit(1);
}

// Median microseconds of one of `count` calls of launch(i).
double microseconds(const cuda::Queue& queue, int count, const std::function<cudaError_t(int)>& launch) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t run = nullptr;
  need(launch(0));
  need(cudaStreamSynchronize(queue.stream));
  need(cudaStreamBeginCapture(queue.stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < count; ++i) need(launch(i));
  need(cudaStreamEndCapture(queue.stream, &graph));
  need(cudaGraphInstantiate(&run, graph, 0));
  cudaEvent_t begin = nullptr, end = nullptr;
  need(cudaEventCreate(&begin));
  need(cudaEventCreate(&end));
  std::vector<double> times;
  for (int replay = 0; replay < kReplays; ++replay) {
    float milliseconds = 0;
    need(cudaEventRecord(begin, queue.stream));
    need(cudaGraphLaunch(run, queue.stream));
    need(cudaEventRecord(end, queue.stream));
    need(cudaEventSynchronize(end));
    need(cudaEventElapsedTime(&milliseconds, begin, end));
    times.push_back(static_cast<double>(milliseconds) * 1e3 / count);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(run);
  cudaGraphDestroy(graph);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void show(const std::string& name, double us, double bytes) {
  fmt::print("{:<46}{:>9.2f} us{:>8.0f} GB/s\n", name, us, bytes / us * 1e-3);
  std::fflush(stdout);
}

OwnedBuffer zeros(cuda::Device& device, std::size_t bytes) { return need(OwnedBuffer::create(device.memory(), bytes)); }
float* floats(const OwnedBuffer& buffer) { return reinterpret_cast<float*>(buffer.data()); }

// ---- products

struct ProductShape {
  const char* name;
  int columns;
  std::vector<std::int64_t> outputs;
  bool norm, gate, add;
};

void bench_products(cuda::Device& device, const std::string& model, ggml_type type,
                    const std::vector<ProductShape>& shapes) {
  for (const ProductShape& shape : shapes) {
    cuda::DeviceWeights weights(device);
    std::size_t bytes = 0;
    for (const auto outputs : shape.outputs)
      bytes += ggml_row_size(type, shape.columns) * static_cast<std::size_t>(outputs);
    const int sets = static_cast<int>(std::clamp<std::size_t>(kBeyondCache / bytes, 1, 64));
    WeightView norm{.rows = 1, .columns = shape.columns};
    need(weights.load_random(norm, WeightRole::vector, 1));
    std::int64_t widest = shape.columns;
    for (const auto outputs : shape.outputs) widest = std::max(widest, outputs);
    constexpr std::size_t kMostRows = 8;
    const auto row_bytes = static_cast<std::size_t>(widest) * sizeof(float) * kMostRows;
    const auto in = zeros(device, row_bytes), out = zeros(device, row_bytes * shape.outputs.size()),
               gated = zeros(device, row_bytes), prepared = zeros(device, row_bytes + 4096);
    std::vector<cuda::ProductsLaunch> launches;
    std::vector<std::unique_ptr<WeightView>> views;
    for (int set = 0; set < sets; ++set) {
      cuda::ProductsLaunch launch{};
      for (std::size_t p = 0; p < shape.outputs.size(); ++p) {
        views.push_back(
            std::make_unique<WeightView>(WeightView{.type = type, .rows = shape.outputs[p], .columns = shape.columns}));
        need(weights.load_random(*views.back(), WeightRole::matrix, static_cast<std::uint64_t>(set)));
        launch.products[launch.product_count++] = {cuda::DeviceWeights::of(*views.back()), nullptr,
                                                   floats(out) + p * row_bytes / sizeof(float), shape.add};
      }
      launch.in = floats(in);
      if (shape.norm) launch.norm = cuda::DeviceWeights::of(Norm{.epsilon = 1e-5F, .weight = norm, .bias = {}});
      launch.columns = shape.columns;
      launch.has_gate = shape.gate;
      launch.function = Activation::silu;
      launch.gated = floats(gated);
      launch.prepared = prepared.data();
      launches.push_back(launch);
    }
    for (const int rows : {1, 8}) {
      const double us = microseconds(device.queue(), std::max(sets, 20), [&](int i) {
        cuda::ProductsLaunch launch = launches[static_cast<std::size_t>(i % sets)];
        launch.count = rows;
        return cuda::multiply(launch, device.queue());
      });
      show(fmt::format("{} {} {}, {} row{}", model, ggml_type_name(type), shape.name, rows, rows > 1 ? "s" : ""), us,
           static_cast<double>(bytes));
    }
  }
}

// ---- attention

struct AttendShape {
  int heads, kv_heads, dim, batch, tokens;
  bool scores;
};

constexpr int kLayers = 16;

SequenceShape sequence_shape(const AttendShape& shape) {
  return {kLayers, shape.heads, shape.kv_heads, shape.dim, KvType::f16, .1F, std::vector<int>(kLayers)};
}

// As if so many tokens had come.
void fill(cuda::CudaStore& store, const AttendShape& shape) {
  need(store.make_room(shape.tokens, false));
  const cuda::DeviceSequence view = store.view();
  const auto heads = static_cast<std::size_t>(kLayers * shape.kv_heads);
  std::vector<cuda::DeviceHead> states(heads);
  std::vector<std::byte*> chunks(heads * static_cast<std::size_t>(view.chunks_per_head));
  need(cudaMemcpy(states.data(), view.heads, heads * sizeof states[0], cudaMemcpyDeviceToHost));
  need(cudaMemcpy(chunks.data(), view.chunks, chunks.size() * sizeof chunks[0], cudaMemcpyDeviceToHost));
  for (std::size_t h = 0; h < heads; ++h) {
    states[h].used = states[h].occupied = shape.tokens;
    for (int first = 0; first < shape.tokens; first += kChunk) {
      const int chunk = first / kChunk, slots = cuda::slots_of_chunk(states[h].most, chunk);
      std::vector<std::int32_t> positions(static_cast<std::size_t>(std::min(slots, shape.tokens - first)));
      for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = first + static_cast<std::int32_t>(i);
      std::byte* const to =
          chunks[h * static_cast<std::size_t>(view.chunks_per_head) + static_cast<std::size_t>(chunk)] +
          static_cast<std::size_t>(slots * shape.dim) * 4 + static_cast<std::size_t>(slots) * 4;
      need(cudaMemcpy(to, positions.data(), positions.size() * sizeof positions[0], cudaMemcpyHostToDevice));
    }
  }
  need(cudaMemcpy(view.heads, states.data(), heads * sizeof states[0], cudaMemcpyHostToDevice));
  store.advance(shape.tokens);
}

ResolvedRetention resolved(const AttendShape& shape) {
  ResolvedRetention all;
  const HeadRule rule{.budget = shape.tokens, .alpha = .99, .recent = shape.tokens / 2, .mode = RetentionMode::score};
  const auto heads = static_cast<std::size_t>(kLayers * shape.kv_heads);
  all.retention.rules.assign(heads, shape.scores ? rule : HeadRule{});
  all.retention.block = 1;
  all.slots.assign(heads, shape.scores ? SlotPlan::bounded(shape.tokens + 1) : SlotPlan());
  all.bounded_slots = all.slots;
  return all;
}

// A row of each of `batch` sequences that hold so many tokens, in layer after layer.
void bench_attention(cuda::Device& device, const AttendShape& shape) {
  std::vector<std::unique_ptr<cuda::CudaStore>> stores;
  std::vector<Span> spans;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(shape.batch));
  for (int i = 0; i < shape.batch; ++i) {
    stores.push_back(std::make_unique<cuda::CudaStore>(device, sequence_shape(shape), resolved(shape)));
    fill(*stores.back(), shape);
    need(stores.back()->make_room(4 * kReplays, false));
    spans.push_back({stores.back().get(), i, i, 1, shape.tokens, false, false, ids});
  }
  cuda::StepUpload upload(device);
  const Step step{ids, spans};
  need(upload.reserve(step));
  need(upload.enqueue(step));
  const auto row = static_cast<std::size_t>(shape.batch * shape.heads * shape.dim) * sizeof(float);
  const auto q = zeros(device, row), k = zeros(device, row), v = zeros(device, row), out = zeros(device, row);
  cuda::AttendLaunch launch{};
  launch.spans = upload.spans();
  launch.failures = upload.failures();
  const auto arrivals = zeros(device, static_cast<std::size_t>(shape.batch * shape.kv_heads) * sizeof(int));
  launch.arrivals = reinterpret_cast<int*>(arrivals.data());
  launch.span_count = shape.batch;
  launch.heads = shape.heads;
  launch.kv_heads = shape.kv_heads;
  launch.head_dim = shape.dim;
  launch.scale = .1F;
  launch.q = floats(q);
  launch.k = floats(k);
  launch.v = floats(v);
  launch.out = floats(out);
  launch.most_slots = static_cast<int>(round_up(shape.tokens + 4 * kReplays, kChunk));
  launch.most_rows = 1;
  stores.front()->note_heads(launch.heads_are);
  const auto scratch = zeros(device, cuda::attend_scratch_floats(launch, 1) * sizeof(float));
  launch.scratch = floats(scratch);
  const double us = microseconds(device.queue(), kLayers, [&](int layer) {
    cuda::AttendLaunch of_layer = launch;
    of_layer.layer = layer;
    return cuda::attend(of_layer, device.queue());
  });
  const double bytes = 4.0 * shape.batch * shape.kv_heads * shape.tokens * shape.dim;
  show(fmt::format("attention {}/{} d {} batch {} N {}{}", shape.heads, shape.kv_heads, shape.dim, shape.batch,
                   shape.tokens, shape.scores ? " scores" : ""),
       us, bytes);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "q4_0";
  ggml_type type = GGML_TYPE_COUNT;
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    if (cuda::has_format(static_cast<ggml_type>(i)) && name == ggml_type_name(static_cast<ggml_type>(i)))
      type = static_cast<ggml_type>(i);
  }
  if (type == GGML_TYPE_COUNT) {
    fmt::print(stderr, "usage: a2sf_cuda_kernels [TYPE [attention]], a type of weights such as q4_0 or bf16\n");
    return 2;
  }
  const auto device = need(cuda::Device::open());
  const bool multiplies = argc < 3;
  if (multiplies)
    bench_products(*device, "8B", type,
                   {{"q k v", 4096, {4096, 1024, 1024}, true, false, false},
                    {"output", 4096, {4096}, false, false, true},
                    {"gate up", 4096, {14336, 14336}, true, true, false},
                    {"down", 14336, {4096}, false, false, true},
                    {"head", 4096, {128256}, true, false, false}});
  if (multiplies && ggml_blck_size(type) <= 32) {
    bench_products(*device, "135M", type,
                   {{"q k v", 576, {576, 192, 192}, true, false, false},
                    {"output", 576, {576}, false, false, true},
                    {"gate up", 576, {1536, 1536}, true, true, false},
                    {"down", 1536, {576}, false, false, true},
                    {"head", 576, {49152}, true, false, false}});
  }
  for (const int batch : {1, 8, 64}) {
    for (const int tokens : {256, 1024, 4096, 16384}) {
      if (std::int64_t{batch} * tokens > 300000) continue;
      for (const bool scores : {false, true}) bench_attention(*device, {32, 8, 128, batch, tokens, scores});
    }
  }
  for (const bool scores : {false, true}) bench_attention(*device, {9, 3, 64, 1, 256, scores});
}
