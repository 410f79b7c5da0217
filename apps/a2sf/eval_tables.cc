#include "eval_tables.h"

#include "policy_list.h"
#include "tables.h"

#include <fmt/format.h>

#include <cmath>

namespace a2sf::app {
namespace {

using Cells = std::vector<std::string>;

// How a measure is shown.
struct Column {
  const char *measure, *heading;
  bool is_share;  // as a percentage
};

std::vector<Column> columns_of(TaskKind kind) {
  if (kind == TaskKind::windows) return {{"loss", "nats per token", false}};
  if (kind == TaskKind::answers) return {{"score", "score %", true}};
  return {{"acc", "acc %", true}, {"acc_norm", "acc_norm %", true}, {"gold_logprob", "log p of right", false}};
}

std::string cell_of(const Column& column, const Estimate* value, bool is_difference) {
  if (value == nullptr) return "-";
  const double scale = column.is_share ? 100 : 1;
  const int digits = column.is_share ? 1 : 3;
  const double mean = scale * value->mean, error = scale * value->standard_error;
  return is_difference ? fmt::format("{:+.{}f} +/- {:.{}f}", mean, digits, error, digits)
                       : fmt::format("{:.{}f} +/- {:.{}f}", mean, digits, error, digits);
}

std::string rows_of(TaskKind kind, const Evaluation& evaluation, const std::vector<PolicySpec>& specs) {
  const bool is_text = kind == TaskKind::windows;
  std::vector<Cells> rows = {{"task", "shots", "policy", "budget", is_text ? "windows" : "items"}};
  if (is_text) rows.front().emplace_back("perplexity");
  for (const Column& column : columns_of(kind)) rows.front().emplace_back(column.heading);
  for (const EvaluationRow& row : evaluation.rows) {
    if (row.kind != kind) continue;
    const PolicySpec& spec = specs[row.policy];
    Cells& cells = rows.emplace_back(
        Cells{row.task, std::to_string(row.shots), policy_cell(spec), budget_cell(spec), with_commas(row.items)});
    if (is_text) cells.push_back(fmt::format("{:.2f}", std::exp(row.find("loss")->mean)));
    for (const Column& column : columns_of(kind)) cells.push_back(cell_of(column, row.find(column.measure), false));
  }
  return rows.size() == 1 ? "" : aligned_table(rows) + "\n";
}

std::string pairs_of(TaskKind kind, const Evaluation& evaluation, const std::vector<PolicySpec>& specs) {
  std::vector<Cells> rows = {{"task", "shots", "budget", "first", "second"}};
  for (const Column& column : columns_of(kind)) rows.front().emplace_back(column.heading);
  if (kind == TaskKind::choices) rows.front().emplace_back("McNemar p");
  for (const EvaluationPair& pair : evaluation.pairs) {
    if (pair.kind != kind) continue;
    Cells& cells = rows.emplace_back(Cells{pair.task, std::to_string(pair.shots), budget_cell(specs[pair.a]),
                                           policy_cell(specs[pair.a]), policy_cell(specs[pair.b])});
    for (const Column& column : columns_of(kind)) cells.push_back(cell_of(column, pair.find(column.measure), true));
    if (pair.mcnemar_p) cells.push_back(fmt::format("{:.2f}", *pair.mcnemar_p));
  }
  return rows.size() == 1 ? "" : "The first policy less the second, item by item:\n" + aligned_table(rows) + "\n";
}

}  // namespace

std::string eval_tables(const Evaluation& evaluation, const std::vector<PolicySpec>& specs) {
  std::string text;
  for (const TaskKind kind : {TaskKind::choices, TaskKind::answers, TaskKind::windows})
    text += rows_of(kind, evaluation, specs) + pairs_of(kind, evaluation, specs);
  if (!text.empty()) text.pop_back();
  return text;
}

}  // namespace a2sf::app
