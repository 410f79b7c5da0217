// Attention of the GPU, the plain and the fast way, against the reference, victim by victim along one stream. Skipped
// where there is no GPU.
#include "kernels/cuda/attend.h"

#include <gtest/gtest.h>

#include "kernels/attend_stream.h"
#include "kernels/cuda/cuda_store.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/step_upload.h"

namespace a2sf::test {
namespace {

// One stream through the GPU.
class CudaStream {
 public:
  explicit CudaStream(const Stream& stream, bool plain = false)
      : s_(stream),
        plain_(plain),
        device_(cuda::Device::open().value()),
        store_(*device_, stream.shape(), stream.resolved()),
        upload_(*device_),
        angles_(uploaded(stream.angles())) {
    store_.record_evictions();
    arrivals_ = OwnedBuffer::create(device_->memory(), static_cast<std::size_t>(s_.kv_heads()) * sizeof(int)).value();
  }

  Outcome run(const Input& input, int chunk) {
    const auto q = uploaded(input.q), k = uploaded(input.k), v = uploaded(input.v), out = uploaded(input.q);
    Outcome outcome{std::vector<float>(input.q.size()), {}, nullptr};
    for (int first = 0, rows = 0; first < s_.tokens && outcome.status; first += rows) {
      rows = std::clamp(s_.prompt > first ? s_.prompt - first : s_.tokens - first, 1, chunk);
      outcome.status = feed(first, rows, floats(q), floats(k), floats(v), floats(out));
    }
    EXPECT_EQ(cudaMemcpy(outcome.out.data(), out.data(), out.bytes(), cudaMemcpyDeviceToHost), cudaSuccess);
    for (int h = 0; h < s_.kv_heads(); ++h) outcome.evictions.push_back(store_.drain_evictions(0, h));
    return outcome;
  }

  const cuda::CudaStore& store() const { return store_; }

 private:
  template <class T>
  OwnedBuffer uploaded(const std::vector<T>& values) {
    auto buffer = OwnedBuffer::create(device_->memory(), values.size() * sizeof(T)).value();
    EXPECT_EQ(cudaMemcpy(buffer.data(), values.data(), buffer.bytes(), cudaMemcpyHostToDevice), cudaSuccess);
    return buffer;
  }
  static float* floats(const OwnedBuffer& buffer) { return reinterpret_cast<float*>(buffer.data()); }

  Status feed(int first, int rows, const float* q, const float* k, const float* v, float* out) {
    const bool in_prompt = first < s_.prompt, prompt_ends = in_prompt && first + rows == s_.prompt;
    if (auto room = store_.make_room(rows, in_prompt); !room) return room;
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(rows));
    const Span span{&store_, 0, 0, rows, first, in_prompt, prompt_ends, ids};
    const Step step{ids, std::span(&span, 1)};
    if (auto room = upload_.reserve(step); !room) return room;
    const std::int64_t q_at = std::int64_t{first} * s_.q_columns(), kv_at = std::int64_t{first} * s_.kv_columns();
    const cuda::DeviceRope rope{reinterpret_cast<const double*>(angles_.data()), s_.dim / 2, 1, s_.interleaved};
    const std::size_t rotations = static_cast<std::size_t>(rows * rope.pairs) * sizeof(float2);
    if (auto room = cuda::reserve(rotations_, device_->memory(), rotations); !room) return room;
    auto* const turns = reinterpret_cast<float2*>(rotations_.data());
    cuda::AttendLaunch launch{upload_.spans(),
                              upload_.failures(),
                              1,
                              0,
                              s_.heads(),
                              s_.kv_heads(),
                              s_.dim,
                              s_.scale(),
                              rope,
                              turns,
                              {},
                              {},
                              q + q_at,
                              k + kv_at,
                              v + kv_at,
                              out + q_at,
                              nullptr,
                              reinterpret_cast<int*>(arrivals_.data()),
                              false,
                              static_cast<int>(store_.most_used(rows)),
                              rows,
                              {}};
    store_.note_heads(launch.heads_are);
    const std::size_t scratch = cuda::attend_scratch_floats(launch, 1) * sizeof(float);
    if (auto room = cuda::reserve(scratch_, device_->memory(), scratch); !room) return room;
    launch.scratch = floats(scratch_);
    EXPECT_EQ(upload_.enqueue(step), cudaSuccess);
    store_.advance(rows);
    EXPECT_EQ(cuda::find_rotations(rope, upload_.positions(), rows, turns, device_->stream()), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(device_->stream()), cudaSuccess);  // in a step other kernels lie between
    if (plain_) {
      EXPECT_EQ(cuda::attend_plain(launch, device_->queue()), cudaSuccess);
    } else {
      EXPECT_EQ(cuda::attend(launch, device_->queue()), cudaSuccess);
    }
    cuda::DeviceFailure failure{};
    EXPECT_EQ(cudaStreamSynchronize(device_->stream()), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(&failure, upload_.failures(), sizeof failure, cudaMemcpyDeviceToHost), cudaSuccess);
    if (failure.cause != 0) return fail(ErrorKind::bad_input, std::to_string(failure.position));
    return prompt_ends ? store_.end_prompt() : Status();
  }

  Stream s_;
  bool plain_;
  std::unique_ptr<cuda::Device> device_;
  cuda::CudaStore store_;
  cuda::StepUpload upload_;
  OwnedBuffer angles_, rotations_, arrivals_, scratch_;
};

class CudaAttend : public testing::Test {
 protected:
  void SetUp() override {
    if (auto device = cuda::Device::open(); !device) GTEST_SKIP() << device.error().message;
  }

  // Outputs, victims and what is held in the end, either way. Returns the outputs of the fast one.
  static std::vector<float> check(const Stream& s, unsigned seed, int chunk = 64) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Input input = random_input(s, seed);
    check_way(s, input, chunk, true);
    return check_way(s, input, chunk, false);
  }

 private:
  static std::vector<float> check_way(const Stream& s, const Input& input, int chunk, bool plain) {
    SCOPED_TRACE(plain ? "plain" : "fast");
    CudaStream stream(s, plain);
    const Outcome gpu = stream.run(input, chunk);
    const Outcome expected = run_reference(s, input, gpu.evictions);
    expect_same(gpu, expected);
    for (int h = 0; h < s.kv_heads(); ++h) expect_same_tokens(stream.store().snapshot(0, h), *expected.store, h);
    return gpu.out;
  }

  static void expect_same(const Outcome& gpu, const Outcome& expected) {
    ASSERT_TRUE(gpu.status) << gpu.status.error().message;
    for (std::size_t i = 0; i < gpu.out.size(); ++i) ASSERT_NEAR(gpu.out[i], expected.out[i], 2e-5) << "element " << i;
    for (std::size_t h = 0; h < expected.evictions.size(); ++h) {
      const auto ours = in_order(gpu.evictions[h]), theirs = in_order(expected.evictions[h]);
      ASSERT_EQ(ours.size(), theirs.size()) << "KV head " << h;
      for (std::size_t i = 0; i < ours.size(); ++i) {
        ASSERT_EQ(std::pair(ours[i].step, ours[i].position), std::pair(theirs[i].step, theirs[i].position));
        expect_same_score(ours[i].score, theirs[i].score);
        ASSERT_NEAR(ours[i].probability, theirs[i].probability, 2e-5);
      }
    }
  }
  static void expect_same_tokens(const std::vector<RetainedToken>& ours, const HostStore& expected, int kv_head) {
    const auto theirs = expected.snapshot(0, kv_head);
    ASSERT_EQ(ours.size(), theirs.size());
    for (std::size_t i = 0; i < ours.size(); ++i) {
      ASSERT_EQ(ours[i].position, theirs[i].position);
      expect_same_score(ours[i].score, theirs[i].score);
    }
  }
  // A score is a sum over many rows.
  static void expect_same_score(float ours, float theirs) { ASSERT_NEAR(ours, theirs, 4e-5 * std::max(1.F, theirs)); }
};

const HeadRule kRule = score_rule(32, .98, 0, 16);

TEST_F(CudaAttend, A2sfMatchesTheReference) { check(Stream(kRule), 1); }
TEST_F(CudaAttend, H2oMatchesTheReference) { check(Stream(score_rule(32, 1, 0, 16)), 2); }
TEST_F(CudaAttend, TovaMatchesTheReference) { check(Stream(score_rule(32, 0, 0, 0)), 3); }
TEST_F(CudaAttend, SinksAndPinsMatchTheReference) { check(Stream(pinned(score_rule(32, .9, 4, 8), 6)), 4); }
TEST_F(CudaAttend, BlocksMatchTheReference) { check(Stream(kRule, 7), 5); }
TEST_F(CudaAttend, FullMatchesTheReference) { check(Stream(kAll), 6); }
TEST_F(CudaAttend, OracleMatchesTheReference) { check(Stream(oracle_rule(20)), 7); }
TEST_F(CudaAttend, PowersMatchTheReference) { check(Stream(raised(kRule)), 8); }
TEST_F(CudaAttend, ThresholdsMatchTheReference) {
  HeadRule rule = kRule;
  rule.threshold = .03;
  check(Stream(rule), 16);
}
TEST_F(CudaAttend, ValueWeightsMatchTheReference) { check(Stream(weighted(score_rule(32, .98, 1, 16))), 9); }
TEST_F(CudaAttend, RaggedBudgetsMatchTheReference) {
  check(Stream({kRule, score_rule(9, .5, 0, 2), score_rule(150, .99, 4, 75), kAll}), 10);
}

TEST_F(CudaAttend, WindowsMatchTheReference) {
  for (const HeadRule& rule : {score_rule(24, .9, 2, 8), kAll, oracle_rule(12)}) {
    for (const int window : {20, 40}) {
      Stream s(rule);
      s.window = window;
      check(s, 11);
    }
  }
}

TEST_F(CudaAttend, PromptsOfOnePieceMatchTheReference) {
  for (const int window : {0, 50}) {
    Stream s({kRule, weighted(score_rule(40, .9, 1, 8)), kAll});
    s.prompt = 150;
    s.window = window;
    check(s, 12);
  }
}

TEST_F(CudaAttend, ShapesMatchTheReference) {
  for (const int dim : {16, 64, 80, 96, 128, 256}) {
    for (const int group : {1, 4, 7}) {
      for (const KvType type : {KvType::f16, KvType::f32}) {
        Stream s({kRule, kAll});
        s.dim = dim;
        s.group = group;
        s.type = type;
        s.interleaved = group > 1;
        s.tokens = 60;
        check(s, 13);
      }
    }
  }
}

TEST_F(CudaAttend, ChunksDoNotMatterToTheByte) {
  Stream s({kRule, kAll, score_rule(20, .9, 2, 8)}, 4);
  EXPECT_EQ(check(s, 14, 64), check(s, 14, 1));
}

TEST_F(CudaAttend, SeveralPartitionsMatchTheReference) {
  Stream s({score_rule(300, .99, 4, 150), kAll}, 3);
  s.tokens = 700;
  check(s, 17);
}

// More partitions than a row has blocks, some heads with one alone.
TEST_F(CudaAttend, LongHeadsBesideShortOnesMatchTheReference) {
  Stream s({score_rule(2200, .999, 4, 1100), score_rule(20, .9, 0, 10), kAll});
  s.tokens = 2400;
  check(s, 18, 256);
}

TEST_F(CudaAttend, AKeyThatIsNotFiniteFailsItsRow) {
  Stream s(kRule);
  Input input = random_input(s, 15);
  input.k[static_cast<std::size_t>(100 * s.kv_columns())] = INFINITY;
  const Outcome gpu = CudaStream(s).run(input, 16);
  ASSERT_FALSE(gpu.status);
  EXPECT_EQ(gpu.status.error().message, "100");
}

}  // namespace
}  // namespace a2sf::test
