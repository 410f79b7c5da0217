#include "eval/masks.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "eval/mask_sums.h"

namespace a2sf {
namespace {

constexpr double kMostOfTheMass = 0.95;
constexpr std::int64_t kRowsOfAStep = 64;  // Session::feed

bool is_late(std::int64_t position, std::int64_t length) { return 4 * position >= 3 * length; }

template <class Value>
std::vector<std::vector<Value>> per_head(const ModelInfo& info) {
  return std::vector(static_cast<std::size_t>(info.layers),
                     std::vector<Value>(static_cast<std::size_t>(info.kv_heads)));
}

// What the full cache's rows add up to.
struct FullSums {
  explicit FullSums(const ModelInfo& info) : sparsity(per_head<double>(info)) {}

  std::vector<std::vector<double>> sparsity;
  TiltSum attention;
};

// Sees the rows of the full cache, and keeps those of one layer and step for the shadows: they attend after the
// sequence itself, layer by layer.
class FullRows final : public Observer {
 public:
  FullRows(FullSums& sums, std::int64_t length)
      : sums_(sums), length_(length), rows_(static_cast<std::size_t>(kRowsOfAStep)) {}

  void observe(const HookLayer& layer) override {
    auto& rows = rows_[static_cast<std::size_t>(layer.position() % kRowsOfAStep)];
    rows.resize(static_cast<std::size_t>(layer.kv_heads()));
    auto sparsity = sums_.sparsity[static_cast<std::size_t>(layer.layer())].begin();
    for (int h = 0; h < layer.kv_heads(); ++h) {
      TrueRow& row = rows[static_cast<std::size_t>(h)];
      read(layer.head(h), layer.position(), row);
      *sparsity++ += share_with(row, kMostOfTheMass);
      if (is_late(layer.position(), length_)) sums_.attention.add(std::span<const float>(row.probabilities));
    }
  }

  const TrueRow& row(std::int64_t position, int kv_head) const {
    return rows_[static_cast<std::size_t>(position % kRowsOfAStep)][static_cast<std::size_t>(kv_head)];
  }

 private:
  static void read(const HookHead& head, std::int64_t position, TrueRow& row) {
    row.oldest = static_cast<std::int32_t>(position + 1 - head.held());
    row.probabilities.assign(static_cast<std::size_t>(position) + 1, 0);
    for (int g = 0; g < head.group(); ++g) {
      const auto p = head.probabilities(0, g);
      for (int slot = 0; slot < head.slots(); ++slot) {
        const std::int32_t at = head.position(slot);
        if (at >= 0) row.probabilities[static_cast<std::size_t>(at)] += p[static_cast<std::size_t>(slot)];
      }
    }
  }

  FullSums& sums_;
  std::int64_t length_;
  std::vector<std::vector<TrueRow>> rows_;  // [position modulo the rows of a step][kv head]
};

// What a policy's rows add up to.
struct PolicySums {
  explicit PolicySums(const ModelInfo& info) : heads(per_head<MaskMeans>(info)) {}

  std::vector<std::vector<MaskMeans>> heads;
  TiltSum slots, scores;
  std::vector<MaskPicture> pictures;
};

std::vector<MaskPicture> empty_pictures(int layers) {
  std::vector<MaskPicture> pictures;
  for (const int layer : {0, layers / 2, layers - 1}) {
    if (pictures.empty() || pictures.back().layer < layer) pictures.push_back({layer, 0, {}});
  }
  return pictures;
}

// Compares a policy's rows in a sequence with those of the full cache.
class PolicyRows final : public ShadowObserver {
 public:
  PolicyRows(PolicySums& sums, bool is_oracle, std::shared_ptr<const FullRows> full, std::int64_t length, bool is_drawn)
      : sums_(sums), is_oracle_(is_oracle), full_(std::move(full)), length_(length), is_drawn_(is_drawn) {}

  void observe(const HookLayer& layer) override {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      const HookHead& head = layer.head(h);
      const TrueRow& row = full_->row(layer.position(), h);
      const Mask ideal = ideal_mask(row, head.budget());
      const Mask kept = is_oracle_ ? ideal : held(head, layer.position());
      if (is_drawn_) draw(layer, h, kept);
      if (row.earlier() <= head.budget()) continue;
      add(sums_.heads[static_cast<std::size_t>(layer.layer())][static_cast<std::size_t>(h)],
          compare_masks(row, kept, ideal));
      if (!is_late(layer.position(), length_)) continue;
      sums_.slots.add(std::span<const std::uint8_t>(kept));
      sums_.scores.add(std::span<const float>(scores(head, layer.position())));
    }
  }

 private:
  static Mask held(const HookHead& head, std::int64_t position) {
    Mask mask(static_cast<std::size_t>(position) + 1);
    for (int slot = 0; slot < head.slots(); ++slot) {
      if (head.position(slot) >= 0) mask[static_cast<std::size_t>(head.position(slot))] = 1;
    }
    return mask;
  }

  static std::vector<float> scores(const HookHead& head, std::int64_t position) {
    std::vector<float> scores(static_cast<std::size_t>(position) + 1);
    for (int slot = 0; slot < head.slots(); ++slot) {
      if (head.position(slot) >= 0) scores[static_cast<std::size_t>(head.position(slot))] = head.score(slot);
    }
    return scores;
  }

  void draw(const HookLayer& layer, int kv_head, const Mask& kept) {
    for (MaskPicture& picture : sums_.pictures) {
      if (picture.layer != layer.layer() || picture.kv_head != kv_head) continue;
      auto& row = picture.kept.emplace_back();
      for (std::size_t i = 0; i < kept.size(); ++i) {
        if (kept[i] != 0) row.push_back(static_cast<std::int32_t>(i));
      }
    }
  }

  PolicySums& sums_;
  bool is_oracle_;
  std::shared_ptr<const FullRows> full_;
  std::int64_t length_;
  bool is_drawn_;
};

class Analysis {
 public:
  Analysis(const std::shared_ptr<const Model>& model, std::span<const PolicySpec> specs, KvType kv_type)
      : model_(model), specs_(specs), kv_type_(kv_type), full_(model->info()) {
    for (std::size_t i = 0; i < specs.size(); ++i) policies_.emplace_back(model->info());
  }

  Status read(std::span<const std::int32_t> sequence, bool is_drawn,
              const std::function<bool(std::size_t)>& keep_going) {
    const auto length = std::ssize(sequence);
    auto session = Session::create(model_, {.policy = parse_policy("full").value(),
                                            .kv_type = kv_type_,
                                            .sequence_tokens = length,
                                            .most_tokens = length});
    if (!session) return tl::unexpected(session.error());
    const auto full = std::make_shared<FullRows>(full_, length);
    if (auto observed = session->observe(full, {.every_row = true, .last_rows = 1}); !observed) return observed;
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      if (is_drawn) policies_[i].pictures = empty_pictures(model_->info().layers);
      auto rows = std::make_shared<PolicyRows>(policies_[i], specs_[i].is_oracle(), full, length, is_drawn);
      if (auto added = session->add_shadow(specs_[i], std::move(rows), {.every_row = true}); !added) return added;
    }
    tokens_ += sequence.size();
    return session->feed(sequence, WantLogits::none, false, keep_going);
  }

  MaskReport report() {
    MaskReport report{std::move(full_.sparsity), full_.attention.mean(), {}};
    for (auto& layer : report.sparsity) {
      for (double& head : layer) head /= static_cast<double>(std::max<std::size_t>(1, tokens_));
    }
    for (PolicySums& sums : policies_) report.policies.push_back(masks_of(sums));
    return report;
  }

 private:
  static PolicyMasks masks_of(PolicySums& sums) {
    PolicyMasks masks{{}, std::move(sums.heads), sums.slots.mean(), sums.scores.mean(), std::move(sums.pictures)};
    for (auto& layer : masks.heads) {
      for (MaskMeans& head : layer) {
        add(masks.all, head);
        head = mean_of(head);
      }
    }
    masks.all = mean_of(masks.all);
    return masks;
  }

  const std::shared_ptr<const Model>& model_;
  std::span<const PolicySpec> specs_;
  KvType kv_type_;
  FullSums full_;
  std::vector<PolicySums> policies_;
  std::size_t tokens_ = 0;
};

}  // namespace

Status check_has_masks(const PolicySpec& spec) {
  if (!spec.evicts_at_prompt_end()) return {};
  return fail(ErrorKind::bad_input,
              fmt::format("{} keeps all of a prompt until its end: there is no mask to compare", to_string(spec)));
}

Result<MaskReport> analyse_masks(const std::shared_ptr<const Model>& model,
                                 std::span<const std::vector<std::int32_t>> sequences,
                                 std::span<const PolicySpec> specs, KvType kv_type, const MaskProgress& progress) {
  for (const PolicySpec& spec : specs) {
    if (auto checked = check_has_masks(spec); !checked) return tl::unexpected(checked.error());
  }
  const auto longest = std::max_element(sequences.begin(), sequences.end(),
                                        [](const auto& a, const auto& b) { return a.size() < b.size(); });
  std::size_t total = 0, done = 0;
  for (const auto& sequence : sequences) total += sequence.size();
  Analysis analysis(model, specs, kv_type);
  for (auto sequence = sequences.begin(); sequence != sequences.end(); ++sequence) {
    const auto keep_going = [&](std::size_t fed) { return !progress || progress(done + fed, total); };
    auto read = analysis.read(*sequence, sequence == longest, keep_going);
    if (!read) return tl::unexpected(read.error());
    done += sequence->size();
  }
  return analysis.report();
}

}  // namespace a2sf
