#include "kernels/host/activations.h"

#include <algorithm>

namespace a2sf {

Activations HostActivations::make(int columns, StepRows rows) {
  places_.push_back({rows, columns});
  widest_ = std::max(widest_, columns);
  return {static_cast<int>(places_.size()) - 1, columns};
}

Status HostActivations::begin(const Step& step) {
  const auto rows = static_cast<std::int64_t>(step.tokens.size()),
             wanted = static_cast<std::int64_t>(step.wanted.size());
  // Whole tiles, so that every place is aligned.
  const auto floats = [&](int columns, StepRows of) {
    return round_up(columns, kTile) * (of == StepRows::all ? rows : wanted);
  };
  std::int64_t all = floats(widest_, StepRows::all);
  for (const Place& place : places_) all += floats(place.columns, place.rows);
  const std::size_t bytes = static_cast<std::size_t>(all) * sizeof(float);
  if (bytes > buffer_.bytes()) {
    auto larger = OwnedBuffer::create(*memory_, bytes);
    if (!larger) return tl::unexpected(larger.error());
    buffer_ = std::move(*larger);
  }
  step_rows_ = static_cast<int>(rows);
  wanted_rows_ = static_cast<int>(wanted);
  scratch_ = reinterpret_cast<float*>(buffer_.data());
  float* next = scratch_ + floats(widest_, StepRows::all);
  for (Place& place : places_) {
    place.data = next;
    next += floats(place.columns, place.rows);
  }
  return {};
}

std::span<const HostProduct> HostActivations::products(std::span<const Product> products) {
  std::transform(products.begin(), products.end(), products_.begin(), [&](const Product& product) {
    return HostProduct{product.weight, product.bias, rows(product.out), product.add};
  });
  return std::span(products_).first(products.size());
}

HostAttendArgs HostActivations::attend_args(const AttendArgs& args) const {
  return {args.layer, args.heads,   args.kv_heads, args.head_dim, args.window,    args.scale,
          args.rope,  rows(args.q), rows(args.k),  rows(args.v),  rows(args.out), rows(args.residual)};
}

}  // namespace a2sf
