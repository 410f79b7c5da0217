#include "progress.h"

#include "outcome.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>

namespace a2sf::app {
namespace {

constexpr std::size_t kWidth = 30;

volatile sig_atomic_t interrupt_flag = 0;

int wake_up[2] = {-1, -1};  // a pipe that can be read once Ctrl-C was pressed, whichever thread got the signal

void on_interrupt(int) {
  interrupt_flag = 1;
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
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // no SA_RESTART: a blocked read returns
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
}

bool interrupted() { return interrupt_flag != 0; }

void stop_if_interrupted() {
  if (interrupted()) fail_with(kInterrupted, "");
}

void wait_for_input(int descriptor) {
  pollfd files[] = {{descriptor, POLLIN, 0}, {wake_up[0], POLLIN, 0}};
  while (::poll(files, 2, -1) < 0 && errno == EINTR && !interrupted()) {
  }
  stop_if_interrupted();
}

Progress::Progress(std::string label)
    : label_(std::move(label)), visible_(::isatty(STDERR_FILENO) == 1), start_(Clock::now()) {}

Progress::~Progress() {
  if (visible_) std::fputs("\r\033[K", stderr);
}

bool Progress::update(std::size_t done, std::size_t total) {
  const auto now = Clock::now();
  if (!visible_ || total == 0 || now - drawn_ < std::chrono::milliseconds(200)) return !interrupted();
  drawn_ = now;
  const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const double spent = std::chrono::duration<double>(now - start_).count();
  const auto filled = static_cast<std::size_t>(share * kWidth);
  const std::string left = share > 0.01 ? time_left(spent * (1 - share) / share) + " left" : "";
  fmt::print(stderr, "\r{} [{}{}] {:3.0f} % {}\033[K", label_, std::string(filled, '#'),
             std::string(kWidth - filled, '.'), 100 * share, left);
  std::fflush(stderr);
  return !interrupted();
}

}  // namespace a2sf::app
