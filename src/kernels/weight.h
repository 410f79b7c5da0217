// A weight matrix as the file holds it: rows of ggml blocks, one row per output.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <cstdint>

namespace a2sf {

// Does not own: the mapped file does, or the backend. A vector is a matrix of one row. Empty (no rows) where a model
// lacks the tensor.
struct WeightView {
  ggml_type type = GGML_TYPE_F32;
  std::int64_t rows = 0, columns = 0;
  const std::byte* data = nullptr;  // nullptr: only the backend's own form is there
  const void* loaded = nullptr;     // the backend's own form of it, where loading has made one

  explicit operator bool() const { return rows > 0; }
  std::size_t row_bytes() const { return ggml_row_size(type, columns); }
  const std::byte* row(std::int64_t index) const { return data + static_cast<std::size_t>(index) * row_bytes(); }
};

}  // namespace a2sf
