#include "files.h"

#include "core/fnv.h"
#include "outcome.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

namespace a2sf::app {
namespace {

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

// What is to take the place of a file has its mode from the first byte on; a new file's is up to the umask.
std::FILE* create(const std::string& path, const std::filesystem::file_status& replaced) {
  const bool is_new = replaced.type() == std::filesystem::file_type::not_found;
  const auto mode = is_new ? mode_t{0666} : static_cast<mode_t>(replaced.permissions()) & 07777;
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (descriptor < 0) return nullptr;
  std::FILE* file = is_new || ::fchmod(descriptor, mode) == 0 ? ::fdopen(descriptor, "wb") : nullptr;
  if (file == nullptr) ::close(descriptor);
  return file;
}

[[noreturn]] void cannot(const char* what, const std::string& path, int error) {
  fail_with(kFailed, fmt::format("cannot {} {}: {}", what, path, std::strerror(error)));
}

// Layer by layer, after what `hash` is of.
template <class Number>
std::uint64_t hash_of_numbers(const std::vector<std::vector<Number>>& table, std::uint64_t hash) {
  for (const auto& layer : table) hash = fnv1a(std::as_bytes(std::span(layer)), hash);
  return hash;
}

}  // namespace

std::string read_file(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) cannot("read", path, EISDIR);
  const std::unique_ptr<std::FILE, Close> opened(path == "-" ? nullptr : std::fopen(path.c_str(), "rb"));
  std::FILE* file = path == "-" ? stdin : opened.get();
  const int error = errno;
  stop_if_interrupted();  // while a pipe was being opened
  if (file == nullptr) cannot("read", path, error);
  std::string text;
  std::vector<char> buffer(1 << 16);
  while (wait_for_input(::fileno(file))) {
    const ssize_t count = ::read(::fileno(file), buffer.data(), buffer.size());
    if (count < 0) cannot("read", path, errno);
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  fail_with(interruption_code(), "");
}

std::string hash_of_profile(const Profile& profile) { return text_hash(to_json(profile)); }

std::string hash_of_table(const std::vector<std::vector<std::int64_t>>& table) {
  return fmt::format("{:016x}", hash_of_numbers(table, kFnvOfNothing));
}

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) cannot("write", "the output", errno);
}

void flush_output() {
  if (std::fflush(stdout) != 0) cannot("write", "the output", errno);
}

OutputFile::OutputFile(const std::string& path) : name_(path == "-" ? "the output" : path), target_(path) {
  namespace fs = std::filesystem;
  if (path == "-") {
    file_ = stdout;
    return;
  }
  std::error_code error;
  const auto status = fs::status(path, error);
  if (fs::is_directory(status)) cannot("write", path, EISDIR);
  if (fs::is_symlink(fs::symlink_status(path, error)) && fs::exists(status))
    target_ = fs::canonical(path, error).string();
  if (!fs::exists(status) || fs::is_regular_file(status)) {
    temporary_ = fmt::format("{}.{}.part", target_, ::getpid());
  }
  file_ = temporary_.empty() ? std::fopen(target_.c_str(), "wb") : create(temporary_, status);
  if (file_ == nullptr) {
    const int code = errno;
    if (!temporary_.empty()) std::remove(temporary_.c_str());
    cannot("write", path, code);
  }
}

OutputFile::~OutputFile() {
  if (file_ != nullptr && file_ != stdout) std::fclose(file_);
  if (!temporary_.empty()) std::remove(temporary_.c_str());
}

void OutputFile::give_up(const char* what) { cannot(what, name_, errno); }

void OutputFile::write(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), file_) != text.size()) give_up("write");
}

void OutputFile::commit() {
  std::FILE* file = std::exchange(file_, nullptr);
  const bool complete = (file == stdout ? std::fflush(file) : std::fclose(file)) == 0;
  if (!complete) give_up("write");
  if (!temporary_.empty() && std::rename(temporary_.c_str(), target_.c_str()) != 0) give_up("write");
  temporary_.clear();
}

}  // namespace a2sf::app
