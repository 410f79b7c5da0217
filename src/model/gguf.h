// A GGUF file, mapped read-only. Everything in it is hostile until checked here.
#pragma once

#include <a2sf/result.h>

#include <ggml.h>
#include <gguf.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace a2sf {

struct GgufTensor {
  std::string name;
  ggml_type type;
  std::vector<std::int64_t> shape;  // innermost first; every entry at least 1
  std::span<const std::byte> data;  // inside the mapping, aligned as the file asks
};

class GgufFile {
 public:
  // Opens, maps and checks the header: type, counts, names, alignment, and that every tensor lies inside the file.
  static Result<GgufFile> open(const std::string& path);

  const std::string& path() const;
  const std::string& hash() const;  // of what is mapped: see FileInfo
  std::uint64_t bytes() const;
  std::span<const GgufTensor> tensors() const;
  const GgufTensor* find(const std::string& name) const;  // nullptr if there is none

  // Gives back the memory of a tensor's pages until they are read again. Only advice.
  void forget(const std::byte* data, std::size_t bytes) const;

  // Typed keys. Missing: an error that names the key; of another type: an error that says which.
  bool has(const std::string& key) const;
  Result<std::string> string(const std::string& key) const;
  Result<std::int64_t> integer(const std::string& key) const;  // any integer type
  Result<double> number(const std::string& key) const;         // any number type
  Result<bool> boolean(const std::string& key) const;

 private:
  struct Mapping;
  explicit GgufFile(std::shared_ptr<const Mapping> mapping);
  std::shared_ptr<const Mapping> mapping_;
};

}  // namespace a2sf
