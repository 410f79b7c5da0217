// Files in and out: whole texts, and results that appear under their name only when complete.
#pragma once

#include <a2sf/profile.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace a2sf::app {

// The bytes of a regular file or pipe ("-": stdin). Ends the command if it cannot be read.
std::string read_file(const std::string& path);

// FNV-1a, 64 bits, of a profile as JSON.
std::string hash_of_profile(const Profile& profile);
// The same of a budget table.
std::string hash_of_table(const std::vector<std::vector<std::int64_t>>& table);

// Ends the command where standard output could not take everything.
void print(std::string_view text);
void flush_output();

// Written beside its target and renamed by commit(), with the mode of the file that it replaces. A target that exists
// and is no regular file is written directly; "-" is standard output.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::string_view text);
  void commit();

 private:
  [[noreturn]] void give_up(const char* what);

  std::string name_, target_, temporary_;  // temporary_ is empty if the target is written directly
  std::FILE* file_ = nullptr;
};

}  // namespace a2sf::app
