// Activations of host backends: floats, all of a step in one buffer, and the operations' arguments in them.
#pragma once

#include <array>
#include <vector>

#include "kernels/backend.h"

namespace a2sf {

// Activations [rows][columns]. A view.
struct HostRows {
  float* data = nullptr;
  int columns = 0;

  float* row(std::int64_t index) const { return data + index * columns; }
};

// A Product in host memory.
struct HostProduct {
  const WeightView* weight;
  const WeightView* bias;  // f32, or nullptr
  HostRows out;
  bool add = false;
};

// AttendArgs in host memory, after the norms of the heads.
struct HostAttendArgs {
  int layer;
  int heads, kv_heads, head_dim;
  int window;  // of a sliding-window layer; 0: none
  float scale;
  int rope;                // of the model's tables
  HostRows q, k, v, out;   // q, out: [heads * head_dim]; k, v: [kv_heads * head_dim]
  HostRows residual = {};  // [embedding]
};

// The heads of every row as rows of their own.
inline HostRows heads_of(HostRows rows, int head_dim) { return {rows.data, head_dim}; }

// Owns what the handles stand for.
class HostActivations {
 public:
  explicit HostActivations(Memory& memory) : memory_(&memory) {}
  Activations make(int columns, StepRows rows);
  int widest() const { return widest_; }

  // Room for the step's rows, not cleared. An error: nothing has changed.
  Status begin(const Step& step);
  // Valid until the next begin().
  HostRows rows(Activations handle) const {
    return {places_[static_cast<std::size_t>(handle.id)].data, handle.columns};
  }
  int count(Activations handle) const { return count_of(places_[static_cast<std::size_t>(handle.id)].rows); }
  // As many rows as the step has, for what an operation needs while it runs.
  HostRows scratch(int columns) const { return {scratch_, columns}; }
  std::span<const HostProduct> products(std::span<const Product> products);
  HostAttendArgs attend_args(const AttendArgs& args) const;

 private:
  struct Place {
    StepRows rows;
    int columns;
    float* data = nullptr;
  };
  int count_of(StepRows rows) const { return rows == StepRows::all ? step_rows_ : wanted_rows_; }

  Memory* memory_;
  std::vector<Place> places_;  // [handle]
  int widest_ = 0;             // columns
  int step_rows_ = 0, wanted_rows_ = 0;
  OwnedBuffer buffer_;  // grows with the largest step seen
  float* scratch_ = nullptr;
  std::array<HostProduct, kMostProducts> products_{};
};

}  // namespace a2sf
