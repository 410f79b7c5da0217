#include "eval_masks.h"

#include "eval/choice_scores.h"
#include "eval/masks.h"
#include "outcome.h"
#include "progress.h"
#include "tables.h"

#include <fmt/format.h>

#include <algorithm>

namespace a2sf::app {
namespace {

std::vector<std::vector<Token>> read_sequences(const Model& model, const Tokenizer& tokenizer,
                                               const EvaluationOptions& options) {
  std::vector<std::vector<Token>> sequences;
  const auto longest = static_cast<std::size_t>(std::max<std::int64_t>(0, model.info().context));
  for (const EvalTaskInfo& named : options.tasks) {
    if (named.kind != TaskKind::choices)
      fail_with(kWrongUsage, fmt::format("--masks: '{}' is no multiple-choice task", named.name));
    const TaskInfo task = need(find_task(named.name));
    for (const std::size_t shots : options.shots) {
      const auto items =
          need(read_items(options.data, task, {.shots = shots, .limit = options.limit, .rules = options.rules}));
      for (const ChoiceItem& item : items) {
        auto [tokens, choice] = need(tokenise(tokenizer, item.choices[item.gold], options.rules, longest));
        tokens.insert(tokens.end(), choice.begin(), choice.end());
        sequences.push_back(std::move(tokens));
      }
    }
  }
  return sequences;
}

Json means_json(const MaskMeans& means) {
  const auto value = [&](double mean) { return means.rows == 0 ? Json() : Json(mean); };
  return {{"compared_rows", means.rows}, {"cosine", value(means.cosine)},         {"jaccard", value(means.jaccard)},
          {"mass", value(means.mass)},   {"ideal_mass", value(means.ideal_mass)}, {"age", value(means.age)}};
}

Json tilt_json(const Tilt& tilt) { return tilt.empty() ? Json() : Json(tilt); }

// Ascending positions as ranges: "0-3,7".
std::string ranges_of(const std::vector<std::int32_t>& positions) {
  std::string text;
  for (std::size_t begin = 0, end = 0; begin < positions.size(); begin = end) {
    for (end = begin + 1; end < positions.size() && positions[end] == positions[end - 1] + 1;) ++end;
    text += fmt::format("{}{}", text.empty() ? "" : ",", positions[begin]);
    if (end - begin > 1) text += fmt::format("-{}", positions[end - 1]);
  }
  return text;
}

Json pictures_json(const std::vector<MaskPicture>& pictures) {
  Json json = Json::array();
  for (const MaskPicture& picture : pictures) {
    Json rows = Json::array();
    for (const auto& kept : picture.kept) rows.push_back(ranges_of(kept));
    json.push_back({{"layer", picture.layer}, {"kv_head", picture.kv_head}, {"kept", std::move(rows)}});
  }
  return json;
}

Json row_json(const PolicyMasks& masks, const PolicySpec& spec) {
  Json json = policy_json(spec);
  json.update(means_json(masks.all));
  json["heads"] = Json::array();
  for (const auto& layer : masks.heads) {
    Json heads = Json::array();
    for (const MaskMeans& head : layer) heads.push_back(means_json(head));
    json["heads"].push_back(std::move(heads));
  }
  json["slots_by_place"] = tilt_json(masks.slots);
  json["scores_by_place"] = tilt_json(masks.scores);
  json["pictures"] = pictures_json(masks.pictures);
  return json;
}

std::string table_of(const MaskReport& report, const std::vector<PolicySpec>& specs) {
  std::vector<std::vector<std::string>> rows = {
      {"policy", "budget", "cosine", "Jaccard", "mass kept", "mass of ideal", "mean age"}};
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const MaskMeans& means = report.policies[i].all;
    const auto cell = [&](double value) { return means.rows == 0 ? "-" : fmt::format("{:.3f}", value); };
    rows.push_back({policy_cell(specs[i]), budget_cell(specs[i]), cell(means.cosine), cell(means.jaccard),
                    cell(means.mass), cell(means.ideal_mass), cell(means.age)});
  }
  return aligned_table(rows);
}

bool names_ideal(const std::string& policy) { return policy.substr(0, policy.find(':')) == "ideal"; }

}  // namespace

std::vector<PolicySpec> read_mask_policies(const PolicyListFlags& flags, const CacheFlags& cache,
                                           const char* standard_budgets) {
  PolicyListFlags with_ideal = flags;
  const auto policies = split_list(flags.policies);
  if (std::none_of(policies.begin(), policies.end(), names_ideal)) with_ideal.policies += ",ideal";
  auto specs = read_policy_list(with_ideal, cache, standard_budgets);
  std::erase_if(specs, [](const PolicySpec& spec) { return spec.keeps_all(); });
  for (const PolicySpec& spec : specs) need(check_has_masks(spec), kWrongUsage);
  return specs;
}

void run_masks(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const EvaluationOptions& options,
               Json document, Delivery& delivery) {
  const auto sequences = read_sequences(*model, tokenizer, options);
  std::vector<PolicySpec> specs;
  for (const EvaluatedPolicy& policy : options.policies) specs.push_back(policy.spec);
  const MaskReport report = [&] {
    Progress progress("masks");
    return need(analyse_masks(model, sequences, specs, options.kv_type,
                              [&](std::size_t done, std::size_t total) { return progress.update(done, total); }));
  }();
  std::size_t tokens = 0;
  for (const auto& sequence : sequences) tokens += sequence.size();
  document["tasks"] = Json::array();
  for (const EvalTaskInfo& task : options.tasks) document["tasks"].push_back(task.name);
  document["shots"] = options.shots;
  document["sequences"] = sequences.size();
  document["tokens"] = tokens;
  document["sparsity"] = report.sparsity;
  document["attention_by_place"] = tilt_json(report.attention);
  document["rows"] = Json::array();
  for (std::size_t i = 0; i < specs.size(); ++i) document["rows"].push_back(row_json(report.policies[i], specs[i]));
  delivery.deliver(document, table_of(report, specs));
}

}  // namespace a2sf::app
