// a2sf: language models with a bounded KV cache, from the command line.
#include "commands.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <string>

namespace a2sf::app {
namespace {

int report(int code, std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  if (!message.empty()) fmt::print(stderr, "a2sf: {}\n", message);
  return code;
}

void add_commands(CLI::App& app) {
  app.set_version_flag("--version", fmt::format("a2sf {}", version()));
  app.require_subcommand(1);
  app.footer("Example:\n  a2sf compare -m model.gguf -f text.txt --policies full,local,h2o,a2sf --budget 128,256");
  for (const auto add :
       {add_run, add_chat, add_compare, add_perplexity, add_bench, add_trace, add_inspect, add_policies}) {
    add(app);
  }
}

int run_program(int argc, char** argv) {
  CLI::App app("Language models with a KV cache bounded by a retention policy", "a2sf");
  add_commands(app);
  try {
    app.parse(argc, argv);
    return kDone;
  } catch (const CLI::Success& success) {  // --help, --version
    app.exit(success);
    return kDone;
  } catch (const CLI::ParseError& error) {
    const auto chosen = app.get_subcommands();
    const std::string name = chosen.empty() ? "a2sf" : "a2sf " + chosen.front()->get_name();
    return report(kWrongUsage, fmt::format("{} (see {} --help)", error.what(), name));
  }
}

}  // namespace
}  // namespace a2sf::app

int main(int argc, char** argv) {
  using namespace a2sf::app;
  catch_interrupts();
  try {
    return run_program(argc, argv);
  } catch (const Failure& failure) {
    return report(failure.code, failure.message);
  } catch (const std::bad_alloc&) {
    return report(kFailed, "out of memory");
  } catch (const std::exception& error) {
    return report(kFailed, error.what());
  }
}
