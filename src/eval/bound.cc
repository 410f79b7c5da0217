#include "eval/bound.h"

#include <algorithm>

#include "model/model_parts.h"

namespace a2sf {
namespace {

// Of one token.
struct Work {
  double bytes = 0, byte_products = 0, float_products = 0, bf16_products = 0;

  double& products_of(ggml_type type) {
    if (type == GGML_TYPE_BF16) return bf16_products;
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 ? float_products : byte_products;
  }

  double seconds(const MachineRates& rates) const {
    return std::max(bytes / rates.read_bytes_per_s, byte_products / rates.byte_products_per_s +
                                                        float_products / rates.float_products_per_s +
                                                        bf16_products / rates.bf16_products_per_s);
  }
};

Work matrix_work(const Weights& weights, const SpeedTest& test) {
  Work work;
  const auto sharers = static_cast<double>(test.decode ? test.sequences : test.tokens);
  for (const WeightView* matrix : matrices(weights)) {
    // The logits of a prompt's last token alone are computed.
    const double uses = matrix == &weights.head && !test.decode ? 1 / sharers : 1;
    const auto products = static_cast<double>(matrix->rows) * static_cast<double>(matrix->columns);
    work.bytes += static_cast<double>(matrix->row_bytes()) * static_cast<double>(matrix->rows) / sharers;
    work.products_of(matrix->type) += products * uses;
  }
  return work;
}

Work attention_work(const Architecture& a, const SpeedTest& test, double attended) {
  constexpr double kScoreBytes = 8;  // the score and the position of a slot
  const double element = test.kv_type == KvType::f16 ? 2 : 4;
  const double seen = attended * a.layers;
  Work work;
  if (test.decode) work.bytes = seen * a.kv_heads * (2 * a.head_dim * element + kScoreBytes);
  work.float_products = seen * a.heads * 2 * a.head_dim;
  return work;
}

}  // namespace

SpeedBound bound_of(const MachineRates& rates, const Model& model, const SpeedTest& test, const SpeedResult& result) {
  const Weights& weights = model.parts().weights;
  const OperationBound matrices{"matrices", result.matmul_seconds_per_token, matrix_work(weights, test).seconds(rates)};
  const OperationBound attention{"attention", result.attend_seconds_per_token,
                                 attention_work(weights.architecture, test, result.attended).seconds(rates)};
  return {rates, 1 / (matrices.bound + attention.bound), {matrices, attention}};
}

Result<MachineRates> measure_rates(const Model& model) { return model.parts().backend->measure_rates(); }

}  // namespace a2sf
