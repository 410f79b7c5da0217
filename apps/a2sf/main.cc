// a2sf: language models with a bounded KV cache, from the command line.
#include "commands.h"
#include "files.h"
#include "messages.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"
#include "usage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace a2sf::app {
namespace {

// A file of ours must not take the place of a standard one that is closed (>&-): what is printed would end up in it.
void fill_standard_files() {
  int file = 0;
  while (file >= 0 && file <= STDERR_FILENO) file = ::open("/dev/null", O_RDONLY);
  if (file > STDERR_FILENO) ::close(file);
}

int report(int code, const std::string& message) {
  if (!message.empty()) say(fmt::format("a2sf: {}\n", harmless(message)));
  return code;
}

void add_commands(CLI::App& app) {
  app.formatter(std::make_shared<HelpFormatter>());
  app.set_help_flag("-h,--help", "Print this help")->group(kLastHeading);
  app.set_version_flag("--version", fmt::format("a2sf {}", version()), "Print the version")->group(kLastHeading);
  app.require_subcommand(1);
  app.footer("Example:\n  a2sf compare -m model.gguf -f text.txt --policies full,local,h2o,a2sf --budget 128,256");
  for (const auto add : {add_run, add_chat, add_serve, add_compare, add_perplexity, add_eval, add_tune, add_bench,
                         add_trace, add_inspect, add_policies}) {
    add(app);
  }
}

int run_program(int argc, char** argv) {
  CLI::App app("Language models with a KV cache bounded by a retention policy", "a2sf");
  add_commands(app);
  check_usage(app, std::vector<std::string>(argv + 1, argv + argc));
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForVersion& version) {
    print(std::string(version.what()) + "\n");
  } catch (const CLI::CallForHelp&) {
    print(app.help());
  } catch (const CLI::ParseError& error) {
    return report(kWrongUsage, message_of(error, app));
  }
  flush_output();
  return kDone;
}

}  // namespace
}  // namespace a2sf::app

int main(int argc, char** argv) {
  using namespace a2sf::app;
  try {
    fill_standard_files();
    catch_interrupts();
    return run_program(argc, argv);
  } catch (const Failure& failure) {
    return report(failure.code, failure.message);
  } catch (const std::bad_alloc&) {
    return report(kFailed, "out of memory");
  } catch (const std::exception& error) {
    return report(kFailed, error.what());
  }
}
