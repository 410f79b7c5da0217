// What a person sees and does while a command works: a bar on stderr if that is a terminal, and Ctrl-C.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace a2sf::app {

// From now on Ctrl-C sets a flag that commands check between steps; the second one ends the process.
void catch_interrupts();
bool interrupted();
void stop_if_interrupted();
// Waits until a descriptor can be read or is at its end; Ctrl-C at any moment ends the wait, and the command.
void wait_for_input(int descriptor);

class Progress {
 public:
  explicit Progress(std::string label);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Draws at most five times a second. False: interrupted.
  bool update(std::size_t done, std::size_t total);

 private:
  using Clock = std::chrono::steady_clock;

  std::string label_;
  bool visible_;
  Clock::time_point start_, drawn_;
};

}  // namespace a2sf::app
