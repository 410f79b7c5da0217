// What a person sees and does while a command works: a bar on stderr if that is a terminal, and Ctrl-C. SIGTERM and
// SIGHUP end a command as Ctrl-C does, with another exit code: in order, so that it removes what it has half written.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace a2sf::app {

// From now on these signals set a flag that commands check between steps; a second one ends the process. A SIGHUP that
// is ignored (nohup) stays so.
void catch_interrupts();
bool interrupted();
// 128 + the signal's number: 130 for Ctrl-C.
int interruption_code();
void stop_if_interrupted();
// For commands that go on after Ctrl-C: forgets it, so that the next one is a first one. False, and nothing changes, if
// another signal wants the process to end.
bool forgive_ctrl_c();
// Waits until a descriptor can be read or is at its end. False: interrupted, at whatever moment.
bool wait_for_input(int descriptor);

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
