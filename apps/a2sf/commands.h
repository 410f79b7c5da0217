// One function per subcommand: adds it to the program, with what it does.
#pragma once

#include <CLI/App.hpp>

namespace a2sf::app {

void add_run(CLI::App& app);
void add_chat(CLI::App& app);
void add_serve(CLI::App& app);
void add_compare(CLI::App& app);
void add_perplexity(CLI::App& app);
void add_eval(CLI::App& app);
void add_bench(CLI::App& app);
void add_tune(CLI::App& app);
void add_trace(CLI::App& app);
void add_inspect(CLI::App& app);
void add_policies(CLI::App& app);

}  // namespace a2sf::app
