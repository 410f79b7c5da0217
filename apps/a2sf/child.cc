#include "child.h"

#include "outcome.h"
#include "progress.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <cerrno>
#include <cstring>
#include <exception>

namespace a2sf::app {
namespace {

void write_all(int file, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t count = ::write(file, text.data() + done, text.size() - done);
    if (count < 0) return;  // the parent is gone
    done += static_cast<std::size_t>(count);
  }
}

// The child's whole life. Its exit code says whether the pipe holds the result or a message.
[[noreturn]] void live_as_child(const std::function<std::string()>& work, int pipe) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  int code = kDone;
  std::string text;
  try {
    text = work();
  } catch (const Failure& failure) {
    code = failure.code;
    text = failure.message;
  } catch (const std::exception& error) {
    code = kFailed;
    text = error.what();
  }
  write_all(pipe, text);
  ::_exit(code);
}

// Reads to the end; stops the child on Ctrl-C.
std::string read_all(int file, pid_t child) {
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t count = ::read(file, buffer, sizeof buffer);
    if (count > 0) text.append(buffer, static_cast<std::size_t>(count));
    if (count == 0 || (count < 0 && errno != EINTR)) return text;
    if (count < 0 && interrupted()) ::kill(child, SIGKILL);
  }
}

}  // namespace

std::string run_in_child(const std::function<std::string()>& work) {
  int ends[2];
  if (::pipe(ends) != 0) fail_with(kFailed, fmt::format("cannot open a pipe: {}", std::strerror(errno)));
  const pid_t child = ::fork();
  if (child < 0) fail_with(kFailed, fmt::format("cannot start a process: {}", std::strerror(errno)));
  if (child == 0) {
    ::close(ends[0]);
    live_as_child(work, ends[1]);
  }
  ::close(ends[1]);
  std::string text = read_all(ends[0], child);
  ::close(ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  stop_if_interrupted();
  if (WIFSIGNALED(status)) {
    fail_with(kFailed,
              fmt::format("the process of a test was ended by signal {}; is there enough memory?", WTERMSIG(status)));
  }
  if (WEXITSTATUS(status) != kDone) fail_with(WEXITSTATUS(status), std::move(text));
  return text;
}

std::size_t peak_rss_bytes() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

}  // namespace a2sf::app
