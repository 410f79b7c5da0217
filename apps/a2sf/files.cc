#include "files.h"

#include "outcome.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <vector>

namespace a2sf::app {
namespace {

constexpr std::uint64_t kMebibyte = 1 << 20;
constexpr std::uint64_t kHashOfNothing = 0xcbf29ce484222325ULL;

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

void add_to_hash(std::uint64_t& hash, const void* bytes, std::size_t count) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  for (std::size_t i = 0; i < count; ++i) hash = (hash ^ at[i]) * 0x100000001b3ULL;
}

[[noreturn]] void cannot(const char* what, const std::string& path, int error) {
  fail_with(kFailed, fmt::format("cannot {} {}: {}", what, path, std::strerror(error)));
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

std::string hash_of_profile(const Profile& profile) {
  std::uint64_t hash = kHashOfNothing;
  for (const auto* table : {&profile.shares, &profile.alphas}) {
    for (const auto& layer : *table) add_to_hash(hash, layer.data(), layer.size() * sizeof(double));
  }
  return fmt::format("{:016x}", hash);
}

std::string hash_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const auto size = static_cast<std::uint64_t>(std::max<std::streamoff>(0, file.tellg()));
  std::uint64_t hash = kHashOfNothing;
  unsigned char size_bytes[8];
  for (int i = 0; i < 8; ++i) size_bytes[i] = static_cast<unsigned char>(size >> (8 * i));
  add_to_hash(hash, size_bytes, sizeof size_bytes);
  const std::uint64_t part = std::min(size, kMebibyte);
  std::vector<char> bytes(part);
  for (const std::uint64_t begin : {std::uint64_t{0}, size - part}) {
    file.seekg(static_cast<std::streamoff>(begin));
    file.read(bytes.data(), static_cast<std::streamsize>(part));
    add_to_hash(hash, bytes.data(), part);
  }
  if (!file) fail_with(kFailed, fmt::format("cannot read {}", path));
  return fmt::format("{:016x}", hash);
}

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) cannot("write", "the output", errno);
}

void flush_output() {
  if (std::fflush(stdout) != 0) cannot("write", "the output", errno);
}

OutputFile::OutputFile(const std::string& path) : name_(path), target_(path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const auto status = fs::status(path, error);
  if (fs::is_directory(status)) cannot("write", path, EISDIR);
  if (fs::is_symlink(fs::symlink_status(path, error)) && fs::exists(status))
    target_ = fs::canonical(path, error).string();
  if (!fs::exists(status) || fs::is_regular_file(status)) {
    temporary_ = fmt::format("{}.{}.part", target_, ::getpid());
  }
  file_ = std::fopen((temporary_.empty() ? target_ : temporary_).c_str(), "wb");
  if (file_ == nullptr) {
    temporary_.clear();
    cannot("write", path, errno);
  }
}

OutputFile::~OutputFile() {
  if (file_ != nullptr) std::fclose(file_);
  if (!temporary_.empty()) std::remove(temporary_.c_str());
}

void OutputFile::give_up(const char* what) { cannot(what, name_, errno); }

void OutputFile::write(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), file_) != text.size()) give_up("write");
}

void OutputFile::commit() {
  const bool closed = std::fclose(std::exchange(file_, nullptr)) == 0;
  if (!closed) give_up("write");
  if (!temporary_.empty() && std::rename(temporary_.c_str(), target_.c_str()) != 0) give_up("write");
  temporary_.clear();
}

}  // namespace a2sf::app
