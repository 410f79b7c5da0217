#include "auto_profile.h"
#include "commands.h"
#include "idle_options.h"
#include "json_lines.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"
#include "tables.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <set>

namespace a2sf::app {
namespace {

constexpr std::size_t kChunk = 64;

struct Flags {
  ModelFlags model;
  TextFlags text;
  CacheFlags cache;
  OutputFlags output;
  std::string layers, heads;
  std::size_t every = 1;
  bool scores = false;
};

// One KV head on its way through the text.
struct Head {
  int layer, kv_head;
  std::set<std::int32_t> kept;
  std::vector<std::int32_t> victims;  // since the last line
  std::vector<Eviction> ahead;        // read from the session, in order of step
  std::size_t next = 0;               // of `ahead`
};

// "3" or "0-2".
struct Range {
  std::size_t first, last;
};

Range read_range(const char* option, const std::string& text) {
  const std::size_t dash = text.find('-');
  const std::size_t first = read_number(option, text.substr(0, dash), 0);
  const Range range{first, dash == std::string::npos ? first : read_number(option, text.substr(dash + 1), 0)};
  if (range.last < first) fail_with(kWrongUsage, fmt::format("{}: {} ends before it begins", option, text));
  return range;
}

// "0-2,5", or nothing for all `count` of them.
std::vector<int> read_indices(const char* option, const std::string& text, int count) {
  const auto ranges = split_list(text.empty() ? fmt::format("0-{}", count - 1) : text);
  std::vector<int> indices;
  for (const std::string& item : ranges) {
    const Range range = read_range(option, item);
    if (range.last >= static_cast<std::size_t>(count)) {
      fail_with(kWrongUsage, fmt::format("{}: there is no {}; the model has 0 to {}", option, range.last, count - 1));
    }
    for (std::size_t index = range.first; index <= range.last; ++index) indices.push_back(static_cast<int>(index));
  }
  std::sort(indices.begin(), indices.end());
  indices.erase(std::unique(indices.begin(), indices.end()), indices.end());
  return indices;
}

class Tracer {
 public:
  Tracer(const Flags& flags, Session& session, const std::vector<Token>& tokens, OutputFile& file)
      : flags_(flags), session_(session), tokens_(tokens), file_(file) {}

  void watch(int layer, int kv_head) {
    heads_.push_back({.layer = layer, .kv_head = kv_head, .kept = {}, .victims = {}, .ahead = {}, .next = 0});
  }

  void run(bool whole_prompt) {
    session_.record_evictions();
    Progress progress("trace");
    const std::size_t chunk = flags_.scores ? 1 : whole_prompt ? tokens_.size() : kChunk;
    for (std::size_t begin = 0; begin < tokens_.size(); begin += chunk) {
      const std::size_t end = std::min(begin + chunk, tokens_.size());
      const auto part = std::span<const Token>(tokens_).subspan(begin, end - begin);
      need(session_.feed(part, WantLogits::none, whole_prompt,
                         [&](std::size_t done) { return progress.update(begin + done, tokens_.size()); }));
      if (!progress.update(end, tokens_.size())) stop_if_interrupted();
      drain();
      for (std::size_t step = begin; step < end; ++step) write_step(step);
    }
  }

  std::size_t lines() const { return lines_; }

 private:
  void drain() {
    for (Head& head : heads_) {
      head.ahead = session_.evictions(head.layer, head.kv_head);
      head.next = 0;
    }
  }

  void write_step(std::size_t step) {
    const bool written = step % flags_.every == 0 || step + 1 == tokens_.size();
    for (Head& head : heads_) {
      head.kept.insert(static_cast<std::int32_t>(step));
      for (; head.next < head.ahead.size() && head.ahead[head.next].step <= static_cast<std::int32_t>(step);
           ++head.next) {
        head.kept.erase(head.ahead[head.next].position);
        head.victims.push_back(head.ahead[head.next].position);
      }
      if (written) write_line(step, head);
    }
  }

  void write_line(std::size_t step, Head& head) {
    line_.clear();
    const auto out = std::back_inserter(line_);
    fmt::format_to(out, R"({{"step":{},"layer":{},"kv_head":{},"kept":[{}],"victims":[{}])", step, head.layer,
                   head.kv_head, fmt::join(head.kept, ","), fmt::join(head.victims, ","));
    if (flags_.scores) {
      fmt::format_to(out, R"(,"scores":[{}])", json_numbers(session_.scores(head.layer, head.kv_head)));
    }
    line_ += "}\n";
    file_.write(line_);
    head.victims.clear();
    ++lines_;
  }

  const Flags& flags_;
  Session& session_;
  const std::vector<Token>& tokens_;
  OutputFile& file_;
  std::vector<Head> heads_;
  std::string line_;
  std::size_t lines_ = 0;
};

// What the heads' rules say in one place: a number where all heads agree, else a table [layer][kv head].
template <class Member>
Json rule_json(const Session& session, const ModelInfo& info, Member member) {
  Json table = Json::array();
  const Json first = member(session.rule(0, 0));
  bool all_agree = true;
  for (int layer = 0; layer < info.layers; ++layer) {
    Json row = Json::array();
    for (int head = 0; head < info.kv_heads; ++head) {
      row.push_back(member(session.rule(layer, head)));
      all_agree = all_agree && row.back() == first;
    }
    table.push_back(row);
  }
  return all_agree ? first : table;
}

Json header_of(const Model& model, const Flags& flags, const PolicySpec& spec, const Session& session,
               const std::vector<Token>& tokens) {
  Json header = new_document("trace", model, flags.model);
  header.update(policy_json(spec));
  header["budget"] = header["alpha"] = header["recent"] = header["sink"] = nullptr;
  if (!spec.keeps_all()) {
    const auto of_all = [&](auto member) { return rule_json(session, model.info(), member); };
    header["budget"] =
        of_all([](const HeadRule& rule) { return rule.budget == kKeepAll ? Json("all") : Json(rule.budget); });
    header["alpha"] = of_all([](const HeadRule& rule) { return rule.alpha; });
    header["recent"] = of_all([](const HeadRule& rule) { return rule.recent; });
    header["sink"] = of_all([](const HeadRule& rule) { return rule.sink; });
  }
  header["kv_type"] = flags.cache.kv_type;
  header["text"] = flags.text.file;
  header["every"] = flags.every;
  header["tokens"] = tokens;
  return header;
}

void run(const Flags& flags) {
  PolicySpec spec = spec_of(flags.cache);
  if (spec.is_oracle()) fail_with(kWrongUsage, "ideal keeps every token: there is nothing to trace");
  if (spec.evicts_at_prompt_end() && flags.scores)
    fail_with(kWrongUsage, "--scores feeds token by token, which block=prompt excludes");
  const bool to_stdout = flags.output.file == "-";
  if (to_stdout && flags.output.json) fail_with(kWrongUsage, "-o - and --json both want standard output");
  const Tokenizer tokenizer = need(Tokenizer::load(flags.model.model));
  const auto [tokens, text_hash] = read_tokens(flags.text, tokenizer);
  const auto model = load_model(flags.model);
  const auto layers = read_indices("--layers", flags.layers, model->info().layers);
  const auto heads = read_indices("--heads", flags.heads, model->info().kv_heads);
  warn_past_context(model->info(), tokens.size());
  use_auto_profile(flags.cache, model->info(), {text_hash, std::ssize(tokens)}, {&spec, 1}, flags.output.json);
  OutputFile file(flags.output.file);
  warn_of_budgets_that_hold_all({&spec, 1}, model->info(), tokens.size(), "the text");
  Session session = need(Session::create(model, {.policy = spec,
                                                 .kv_type = kv_type_of(flags.cache),
                                                 .sequence_tokens = static_cast<std::int64_t>(tokens.size()),
                                                 .most_tokens = static_cast<std::int64_t>(tokens.size())}));
  const Json header = header_of(*model, flags, spec, session, tokens);
  file.write(dump(header, -1));
  Tracer tracer(flags, session, tokens, file);
  for (const int layer : layers) {
    for (const int head : heads) tracer.watch(layer, head);
  }
  tracer.run(spec.evicts_at_prompt_end());
  file.commit();
  if (to_stdout) return;
  Json document = header;
  document["tokens"] = tokens.size();
  document["file"] = flags.output.file;
  document["lines"] = tracer.lines();
  Delivery({.json = flags.output.json, .file = ""})
      .deliver(document,
               harmless(fmt::format("{}: {} lines, {} tokens, {}", flags.output.file, with_commas(tracer.lines()),
                                    with_commas(tokens.size()), to_string(spec))) +
                   "\n");
}

}  // namespace

void add_trace(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = add_command(app, "trace", "Write what every KV head keeps after every token, as JSON lines",
                                  "a2sf trace -m model.gguf -f text.txt -o trace.jsonl --tokens 600 --budget 128 "
                                  "--layers 0,10,20 --heads 0");
  add_model_flags(command, &flags->model);
  add_text_flags(command, &flags->text);
  command
      ->add_option("-o,--output", flags->output.file,
                   "The file to write, -: standard output. A header (budget, alpha, recent, sink: a number, or a table "
                   "by layer and KV head where heads differ), then a line per step and head")
      ->type_name("FILE")
      ->required();
  command->add_option("--layers", flags->layers, "Layers to write, and ranges of them: 0-2,10")
      ->type_name("N,...")
      ->default_str("all");
  command->add_option("--heads", flags->heads, "KV heads to write, and ranges of them: 0-1,5")
      ->type_name("N,...")
      ->default_str("all");
  command
      ->add_option("--every", flags->every,
                   "Write every Kth step, and the last; victims are those since the line before")
      ->type_name("K")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 30));
  command->add_flag("--scores", flags->scores, "Write the scores of the kept tokens as well; slower");
  add_cache_flags(command, &flags->cache);
  add_json_flag(command, &flags->output);
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
