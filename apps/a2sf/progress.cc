#include "progress.h"

#include "messages.h"
#include "outcome.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <cerrno>
#include <cmath>

namespace a2sf::app {
namespace {

constexpr std::size_t kWidth = 30;

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};

volatile sig_atomic_t interrupting_signal = 0;

int wake_up[2] = {-1, -1};  // a pipe that can be read once a signal came, whichever thread got it

void set_handlers(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);  // no SA_RESTART: a blocked read returns
  for (const int signal : kSignals) {
    struct sigaction old = {};
    sigaction(signal, nullptr, &old);
    if (signal != SIGHUP || old.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }
}

void on_interrupt(int signal) {
  set_handlers(SIG_DFL);
  interrupting_signal = signal;
  const int error = errno;
  [[maybe_unused]] const ssize_t written = ::write(wake_up[1], "", 1);
  errno = error;
}

std::string time_left(double seconds) {
  const auto whole = std::lround(seconds);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

void catch_interrupts() {
  if (::pipe2(wake_up, O_CLOEXEC | O_NONBLOCK) != 0) fail_with(kFailed, "cannot open a pipe");
  set_handlers(on_interrupt);
}

bool interrupted() { return interrupting_signal != 0; }

int interruption_code() { return 128 + static_cast<int>(interrupting_signal); }

void stop_if_interrupted() {
  if (interrupted()) fail_with(interruption_code(), "");
}

bool forgive_ctrl_c() {
  if (interrupting_signal != SIGINT) return false;
  char written = 0;
  while (::read(wake_up[0], &written, 1) > 0) {
  }
  interrupting_signal = 0;
  set_handlers(on_interrupt);
  return true;
}

bool wait_for_input(int descriptor) {
  pollfd files[] = {{descriptor, POLLIN, 0}, {wake_up[0], POLLIN, 0}};
  while (::poll(files, 2, -1) < 0 && errno == EINTR && !interrupted()) {
  }
  return !interrupted();
}

Progress::Progress(std::string label)
    : label_(std::move(label)), visible_(::isatty(STDERR_FILENO) == 1), start_(Clock::now()) {}

Progress::~Progress() {
  if (visible_) say("\r\033[K");
}

bool Progress::update(std::size_t done, std::size_t total) {
  const auto now = Clock::now();
  if (!visible_ || total == 0 || now - drawn_ < std::chrono::milliseconds(200)) return !interrupted();
  drawn_ = now;
  const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const double spent = std::chrono::duration<double>(now - start_).count();
  const auto filled = static_cast<std::size_t>(share * kWidth);
  const std::string left = share > 0.01 ? time_left(spent * (1 - share) / share) + " left" : "";
  say(fmt::format("\r{} [{}{}] {:3.0f} % {}\033[K", label_, std::string(filled, '#'), std::string(kWidth - filled, '.'),
                  100 * share, left));
  return !interrupted();
}

}  // namespace a2sf::app
