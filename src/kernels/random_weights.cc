#include "kernels/random_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/random_bits.h"

namespace a2sf {
namespace {

constexpr std::size_t kSlab = std::size_t{64} << 20;
constexpr std::int64_t kValues = 8192;    // that are quantised: some types take long
constexpr std::int64_t kLeastPiece = 32;  // columns: shorter ones would take long to string together

std::int64_t piece_columns(ggml_type type) { return std::max<std::int64_t>(kLeastPiece, ggml_blck_size(type)); }

std::vector<float> random_values(std::size_t count, std::int64_t columns, WeightRole role, RandomBits random) {
  const double middle = role == WeightRole::vector ? 1 : 0;
  const double most = role == WeightRole::vector ? 0.1 : std::sqrt(3.0 / static_cast<double>(columns));
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(middle + most * random.symmetric());
  return values;
}

}  // namespace

RandomRows::RandomRows(const WeightView& weight, WeightRole role, std::uint64_t seed)
    : row_bytes_(weight.row_bytes()),
      piece_bytes_(ggml_row_size(weight.type, piece_columns(weight.type))),
      seed_(seed),
      pieces_(static_cast<std::size_t>(kValues / piece_columns(weight.type)) * piece_bytes_) {
  const auto values = random_values(kValues, weight.columns, role, RandomBits(seed));
  if (weight.type == GGML_TYPE_F32) {
    std::memcpy(pieces_.data(), values.data(), pieces_.size());
    return;
  }
  // Some types want to be told how much each column matters.
  const std::vector<float> alike(ggml_quantize_requires_imatrix(weight.type) ? values.size() : 0, 1);
  ggml_quantize_chunk(weight.type, values.data(), pieces_.data(), 0, 1, kValues,
                      alike.empty() ? nullptr : alike.data());
}

void RandomRows::write(std::int64_t row, std::byte* out) const {
  const std::size_t pieces = pieces_.size() / piece_bytes_;
  RandomBits random(seed_ + static_cast<std::uint64_t>(row) + 1);
  for (std::size_t at = 0; at < row_bytes_; at += piece_bytes_) {
    const std::size_t piece = random() % pieces;
    std::memcpy(out + at, pieces_.data() + piece * piece_bytes_, std::min(piece_bytes_, row_bytes_ - at));
  }
}

Result<std::byte*> WeightMemory::take(std::size_t wanted) {
  constexpr std::size_t kAlignment = 64;
  const std::size_t bytes = (wanted + kAlignment - 1) / kAlignment * kAlignment;
  if (slabs_.empty() || slabs_.back().bytes() - taken_ < bytes) {
    auto slab = OwnedBuffer::create(*memory_, std::max(bytes, kSlab));
    if (!slab) return tl::unexpected(slab.error());
    slabs_.push_back(std::move(*slab));
    taken_ = 0;
  }
  std::byte* data = slabs_.back().data() + taken_;
  taken_ += bytes;
  return data;
}

Status make_random(WeightView& weight, const RandomRows& rows, WeightMemory& memory) {
  const std::size_t row_bytes = weight.row_bytes();
  const auto data = memory.take(row_bytes * static_cast<std::size_t>(weight.rows));
  if (!data) return tl::unexpected(data.error());
  for (std::int64_t row = 0; row < weight.rows; ++row)
    rows.write(row, *data + static_cast<std::size_t>(row) * row_bytes);
  weight.data = *data;
  return {};
}

}  // namespace a2sf
