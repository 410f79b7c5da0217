// Wrong commands and options, found before CLI11 reads the arguments: it takes "-hf" for -h and -f and "-ngl" for -n
// with the value "gl", and asks for a missing model before it speaks of an option that does not exist.
#pragma once

#include <CLI/App.hpp>

#include <span>
#include <string>

namespace a2sf::app {

// Ends the program with exit code 2 where there is no command, or an unknown one, or one with an unknown option: in one
// line that says what there is.
void check_usage(CLI::App& app, std::span<const std::string> arguments);

// What CLI11 found wrong with the arguments of the command it got to.
std::string message_of(const CLI::ParseError& error, const CLI::App& app);

}  // namespace a2sf::app
