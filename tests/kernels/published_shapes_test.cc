// Matrices in the widths and vocabularies of published models: each is packed as loading does it, with another one
// behind it, and multiplied with.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/cpu/matmul.h"
#include "kernels/rows.h"
#include "support/packed_types.h"

namespace a2sf::cpu {
namespace {

struct Shape {
  const char* model;
  std::int64_t width, vocabulary;
};

constexpr Shape kShapes[] = {{"gpt2_xl", 1600, 50257},      {"llama_3_2_1b", 2048, 128256},
                             {"gemma_3_270m", 640, 262144}, {"qwen_2_5_0_5b", 896, 151936},
                             {"phi_3_mini", 3072, 32064},   {"opt_125m", 768, 50272}};

// All zeros but for some rows of ones; the zeros take no memory until they are read.
class SparseMatrix {
 public:
  SparseMatrix(ggml_type type, std::int64_t rows, std::int64_t columns)
      : bytes_(ggml_row_size(type, columns) * static_cast<std::size_t>(rows)),
        data_(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (data_ == MAP_FAILED) throw std::bad_alloc();
    view = {type, rows, columns, static_cast<const std::byte*>(data_)};
  }
  ~SparseMatrix() { munmap(data_, bytes_); }
  SparseMatrix(const SparseMatrix&) = delete;
  SparseMatrix& operator=(const SparseMatrix&) = delete;

  void set_to_ones(std::int64_t row) {
    const std::vector<float> ones(static_cast<std::size_t>(view.columns), 1);
    ggml_quantize_chunk(view.type, ones.data(),
                        static_cast<std::byte*>(data_) + static_cast<std::size_t>(row) * view.row_bytes(), 0, 1,
                        view.columns, nullptr);
  }

  WeightView view;

 private:
  std::size_t bytes_;
  void* data_;
};

std::array<std::int64_t, 3> rows_of_ones(const WeightView& view) { return {0, view.rows / 2, view.rows - 1}; }

struct Case {
  Isa isa;
  Shape shape;
  ggml_type type;
};

std::string name_of(const Case& each) {
  return name_of(each.isa) + "_" + each.shape.model + "_" + ggml_type_name(each.type);
}
void PrintTo(const Case& each, std::ostream* out) { *out << name_of(each); }

// Types of longer blocks do not fit every width.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Isa isa : test::isas_with_panels()) {
    for (const Shape& shape : kShapes) {
      for (const ggml_type type : test::packed_types()) {
        if (shape.width % ggml_blck_size(type) == 0) all.push_back({isa, shape, type});
      }
    }
  }
  return all;
}

class PublishedShapes : public testing::TestWithParam<Case> {};

TEST_P(PublishedShapes, AreMultipliedWithWhateverIsPackedBehindThem) {
  if (std::getenv("A2SF_TEST_TINY_ONLY") != nullptr) GTEST_SKIP() << "up to a gigabyte";
  const auto& [isa, shape, type] = GetParam();
  // The second is larger than what the first one's memory is rounded up by.
  SparseMatrix embedding(type, shape.vocabulary, shape.width), next(type, 4097, shape.width);
  for (SparseMatrix* matrix : {&embedding, &next}) {
    for (const std::int64_t row : rows_of_ones(matrix->view)) matrix->set_to_ones(row);
  }
  ThreadPool pool(2);
  Matmul matmul(pool, kernels_of(isa).panels, host_memory());
  ASSERT_TRUE(matmul.load(embedding.view) && matmul.load(next.view));
  ASSERT_NE(embedding.view.loaded, nullptr);
  for (const SparseMatrix* matrix : {&embedding, &next}) {
    std::vector<float> ones(static_cast<std::size_t>(shape.width), 1),
        expected(static_cast<std::size_t>(matrix->view.rows)), sums(expected.size());
    for (const std::int64_t row : rows_of_ones(matrix->view))
      expected[static_cast<std::size_t>(row)] = static_cast<float>(shape.width);
    matmul.run({ones.data(), static_cast<int>(shape.width)}, 1,
               std::array{HostProduct{&matrix->view, nullptr, {sums.data(), static_cast<int>(sums.size())}}});
    for (std::size_t row = 0; row < sums.size(); ++row)
      ASSERT_NEAR(sums[row], expected[row], .02F * static_cast<float>(shape.width)) << "row " << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, PublishedShapes, testing::ValuesIn(cases()),
                         [](const auto& instance) { return name_of(instance.param); });

}  // namespace
}  // namespace a2sf::cpu
