// Options that several commands share, and what they turn into.
#pragma once

#include "files.h"
#include "help.h"
#include "messages.h"
#include "policy/sharing.h"

#include <a2sf/a2sf.h>
#include <CLI/App.hpp>
#include <nlohmann/json.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace a2sf::app {

using Json = nlohmann::ordered_json;

// A subcommand whose help ends with an example.
CLI::App* add_command(CLI::App& app, const char* name, const char* description, const char* example);

struct ModelFlags {
  std::string model, device = "cpu", repack = "on";
  int threads = 0;
};
// -m FILE or the first argument, required: a GGUF file, or a model that tools/fetch keeps, by its name there.
CLI::Option* add_model_file(CLI::App* command, std::string* file);
CLI::Option* add_model_flags(CLI::App* command, ModelFlags* flags);  // returns that of the file
ModelOptions model_options(const ModelFlags& flags);

struct OutputFlags {
  bool json = false;
  std::string file;
};
void add_json_flag(CLI::App* command, OutputFlags* flags);
void add_output_file(CLI::App* command, OutputFlags* flags);  // "-": instead of --json

struct CacheFlags {
  std::string policy = "a2sf", alpha, power, value_weight, budget, profile, sink, recent, block, pin, cold, recall,
              kv_type = "f16";
  const char* standard_profile = "none";  // where --profile is not given: "none" or "auto" (auto_profile.h)
};
// Without `pick`: neither --policy nor --budget, which the command has as lists.
void add_cache_flags(CLI::App* command, CacheFlags* flags, bool pick = true);
void add_budget_flags(CLI::App* command, CacheFlags* flags);  // of these --budget and --profile
inline constexpr const char* kCacheHeading = "Cache";
void add_kv_type_flag(CLI::App* command, CacheFlags* flags);

struct SamplingFlags {
  SamplerOptions options;
  std::vector<std::string> stop;
};
void add_sampling_flags(CLI::App* command, SamplingFlags* flags);
// How tokens were drawn: temperature, top_k, top_p, min_p, repeat_penalty, seed, stop.
Json sampling_json(const SamplingFlags& flags);

struct TextFlags {
  std::string file;
  std::size_t tokens = 0;  // 0: all
};
void add_text_flags(CLI::App* command, TextFlags* flags);

// What the flags other than --policy and --kv-type say, where one was given: they come before a policy's own options.
std::vector<PolicyOption> given_options(const CacheFlags& flags);
// Reads the flags as one policy, checks what can be checked without a model, and warns of what does nothing.
PolicySpec spec_of(const CacheFlags& flags);
// Reads a policy and checks what can be checked without a model.
PolicySpec read_policy(const std::string& text, const CacheFlags& flags);
KvType kv_type_of(const CacheFlags& flags);

std::shared_ptr<const Model> load_model(const ModelFlags& flags);
// The file's name, or what "-" stands for.
std::string text_name(const std::string& file);
// What a file that was tuned on this text says of it.
TunedText tuned_text(const std::string& file, const std::string& hash);
// A file's text. Ends the command if it is empty or not valid UTF-8.
std::string read_text(const std::string& file);
// Tokens of a file's text, BOS if the model asks for it, cut to the first `flags.tokens`; the hash is of the whole
// text.
struct TokenText {
  std::vector<Token> tokens;
  std::string hash;
};
TokenText read_tokens(const TextFlags& flags, const Tokenizer& tokenizer);

void warn_past_context(const ModelInfo& info, std::size_t tokens);

// The items between commas, without blanks around them.
std::vector<std::string> split_list(const std::string& text);
// "128,256": exit code 2 unless whole numbers from `least` on.
std::vector<std::size_t> read_numbers(const std::string& option, const std::string& text, std::size_t least);
std::size_t read_number(const std::string& option, const std::string& text, std::size_t least);

// The beginning of every JSON document: how the result was got.
Json new_document(const char* command, const Model& model, const ModelFlags& flags);
// A spec's budget: null, a count, a ratio, "all" or the mean of the bounded heads of a table.
Json budget_json(const PolicySpec& spec);
// What a document or row says of its policy: `policy`, `spec`, `budget`, `profile`, `token_classes` if there are some.
Json policy_json(const PolicySpec& spec);
// Opens the output file, if there is one, before the work begins; in the end prints the document or the text for people
// and writes the document to that file.
class Delivery {
 public:
  explicit Delivery(const OutputFlags& flags);
  void deliver(const Json& document, const std::string& for_people);

 private:
  bool json_;
  std::optional<OutputFile> file_;
};
// As JSON that a terminal can be shown: what is not UTF-8 becomes U+FFFD, control characters are written out.
std::string dump(const Json& document, int indent);

}  // namespace a2sf::app
