#include "model/gguf.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "core/fnv.h"
#include "core/libllama.h"

namespace a2sf {
namespace {

// The kernels read blocks with aligned loads of their scales; 16 covers every ggml type.
constexpr std::size_t kLeastAlignment = 16;

struct FreeGguf {
  void operator()(gguf_context* gguf) const { gguf_free(gguf); }
};
using GgufPointer = std::unique_ptr<gguf_context, FreeGguf>;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using FilePointer = std::unique_ptr<std::FILE, CloseFile>;

class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(void* address, std::size_t size) : address_(address), size_(size) {}
  MappedFile(MappedFile&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~MappedFile() {
    if (address_ != nullptr) munmap(address_, size_);
  }

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(address_), size_}; }

 private:
  void* address_ = nullptr;
  std::size_t size_ = 0;
};

std::string system_message(int code) { return std::generic_category().message(code); }

tl::unexpected<Error> fail_in(const std::string& path, ErrorKind kind, const std::string& message) {
  return fail(kind, fmt::format("\"{}\": {}", path, message));
}

// One descriptor for header and mapping: a path that is replaced in between would show two different files.
Result<FilePointer> open_regular_file(const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    return fail_in(path.c_str(), ErrorKind::bad_input, "a file name must not contain a NUL byte");
  }
  // O_NONBLOCK: opening a pipe without a writer would wait for ever.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return fail_in(path, ErrorKind::io, "cannot open: " + system_message(errno));
  FilePointer file(fdopen(descriptor, "rb"));
  if (file == nullptr) {
    const int code = errno;
    ::close(descriptor);
    return fail_in(path, ErrorKind::io, "cannot open: " + system_message(code));
  }
  struct stat status {};
  if (fstat(descriptor, &status) != 0) return fail_in(path, ErrorKind::io, "cannot stat: " + system_message(errno));
  if (S_ISDIR(status.st_mode)) return fail_in(path, ErrorKind::bad_input, "is a directory, not a GGUF file");
  if (!S_ISREG(status.st_mode)) return fail_in(path, ErrorKind::bad_input, "is no regular file");
  if (status.st_size == 0) return fail_in(path, ErrorKind::bad_input, "is empty, not a GGUF file");
  return file;
}

Result<MappedFile> map_file(const std::string& path, std::FILE* file) {
  struct stat status {};
  if (fstat(fileno(file), &status) != 0) return fail_in(path, ErrorKind::io, "cannot stat: " + system_message(errno));
  const auto size = static_cast<std::size_t>(status.st_size);
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fileno(file), 0);
  if (address == MAP_FAILED) {
    const ErrorKind kind = errno == ENOMEM ? ErrorKind::out_of_memory : ErrorKind::io;
    return fail_in(path, kind, fmt::format("cannot map {} bytes: {}", size, system_message(errno)));
  }
  return MappedFile(address, size);
}

// The file's size, its first MiB and its last, which overlap in a small one.
std::string hash_of(std::span<const std::byte> file) {
  constexpr std::size_t kMebibyte = 1 << 20;
  std::array<std::byte, 8> size{};
  for (std::size_t i = 0; i < size.size(); ++i) size[i] = static_cast<std::byte>(std::uint64_t{file.size()} >> (8 * i));
  const std::size_t part = std::min(file.size(), kMebibyte);
  return fmt::format("{:016x}", fnv1a(file.last(part), fnv1a(file.first(part), fnv1a(size))));
}

Result<GgufPointer> read_header(const std::string& path, std::FILE* file) {
  initialise_libllama();  // takes over the log: libgguf would print
  const ErrorCapture capture;
  GgufPointer gguf(gguf_init_from_file_ptr(file, {.no_alloc = true, .ctx = nullptr}));
  if (gguf == nullptr) {
    return fail_in(path, ErrorKind::bad_input, "not a GGUF file: " + capture.reason("the header cannot be read"));
  }
  return gguf;
}

// Names end up in one-line messages, and libgguf cuts them at an embedded NUL.
bool is_printable_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c != '\x7f'; });
}

std::optional<std::uint64_t> product(std::uint64_t a, std::uint64_t b) {
  if (b != 0 && a > std::numeric_limits<std::uint64_t>::max() / b) return std::nullopt;
  return a * b;
}

// ggml_nbytes multiplies before it divides by the block size, and wraps around for absurd shapes.
std::optional<std::uint64_t> tensor_bytes(ggml_type type, const std::int64_t* shape) {
  const std::int64_t block = ggml_blck_size(type);
  if (block <= 0 || shape[0] % block != 0) return std::nullopt;
  std::optional<std::uint64_t> bytes = product(static_cast<std::uint64_t>(shape[0] / block), ggml_type_size(type));
  for (int i = 1; i < GGML_MAX_DIMS && bytes; ++i) bytes = product(*bytes, static_cast<std::uint64_t>(shape[i]));
  return bytes;
}

std::vector<std::int64_t> without_trailing_ones(const std::int64_t* shape) {
  std::vector<std::int64_t> result(shape, shape + GGML_MAX_DIMS);
  while (result.size() > 1 && result.back() == 1) result.pop_back();
  return result;
}

Result<GgufTensor> read_tensor(const std::string& path, const gguf_context* gguf, std::int64_t id,
                               std::span<const std::byte> file) {
  const std::string name = gguf_get_tensor_name(gguf, id);
  if (!is_printable_name(name)) {
    return fail_in(path, ErrorKind::bad_input,
                   fmt::format("the name of tensor {} is empty or has characters that cannot be printed", id));
  }
  const ggml_type type = gguf_get_tensor_type(gguf, id);
  const std::int64_t* shape = gguf_get_tensor_ne(gguf, id);
  if (std::any_of(shape, shape + GGML_MAX_DIMS, [](std::int64_t size) { return size < 1; })) {
    return fail_in(path, ErrorKind::bad_input, fmt::format("tensor '{}' has a dimension without elements", name));
  }
  const std::optional<std::uint64_t> bytes = tensor_bytes(type, shape);
  if (!bytes) {
    return fail_in(path, ErrorKind::bad_input, fmt::format("tensor '{}' has an impossible shape", name));
  }
  // Subtractions only: a sum of sizes from the file could wrap around.
  const std::uint64_t start = gguf_get_data_offset(gguf);
  const std::uint64_t offset = gguf_get_tensor_offset(gguf, id);
  if (start > file.size() || offset > file.size() - start || *bytes > file.size() - start - offset) {
    return fail_in(
        path, ErrorKind::bad_input,
        fmt::format("tensor '{}' ({} bytes) reaches past the end of the file: it is incomplete", name, *bytes));
  }
  return GgufTensor{name, type, without_trailing_ones(shape), file.subspan(start + offset, *bytes)};
}

Status check_alignment(const std::string& path, const gguf_context* gguf) {
  const std::size_t alignment = gguf_get_alignment(gguf);
  const bool power_of_two = alignment != 0 && (alignment & (alignment - 1)) == 0;
  if (power_of_two && alignment >= kLeastAlignment) return {};
  return fail_in(path, ErrorKind::bad_input,
                 fmt::format("key 'general.alignment' is {}: it has to be a power of two, at least {}", alignment,
                             kLeastAlignment));
}

}  // namespace

struct GgufFile::Mapping {
  std::string path, hash;
  GgufPointer gguf;
  MappedFile file;
  std::vector<GgufTensor> tensors;
  std::unordered_map<std::string, std::size_t> index;

  // The id of a key that is there.
  Result<std::int64_t> find_key(const std::string& key) const {
    const std::int64_t id = gguf_find_key(gguf.get(), key.c_str());
    if (id < 0) return fail_in(path, ErrorKind::bad_input, fmt::format("key '{}' is missing", key));
    return id;
  }

  tl::unexpected<Error> wrong_type(const std::string& key, std::int64_t id, const char* wanted) const {
    const gguf_type type = gguf_get_kv_type(gguf.get(), id);
    if (type == GGUF_TYPE_ARRAY) {
      return fail_in(path, ErrorKind::unsupported,
                     fmt::format("key '{}' is an array; only a single {} is supported", key, wanted));
    }
    return fail_in(path, ErrorKind::bad_input,
                   fmt::format("key '{}' has type {}, not {}", key, gguf_type_name(type), wanted));
  }

  // Offsets need not differ and names were cut at a NUL, so two tensors can still share a name here.
  Status read_tensors() {
    const std::int64_t count = gguf_get_n_tensors(gguf.get());
    for (std::int64_t id = 0; id < count; ++id) {
      Result<GgufTensor> tensor = read_tensor(path, gguf.get(), id, file.bytes());
      if (!tensor) return tl::unexpected(tensor.error());
      if (!index.emplace(tensor->name, tensors.size()).second) {
        return fail_in(path, ErrorKind::bad_input, fmt::format("there are two tensors '{}'", tensor->name));
      }
      tensors.push_back(std::move(*tensor));
    }
    return {};
  }
};

GgufFile::GgufFile(std::shared_ptr<const Mapping> mapping) : mapping_(std::move(mapping)) {}

Result<GgufFile> GgufFile::open(const std::string& path) {
  Result<FilePointer> file = open_regular_file(path);
  if (!file) return tl::unexpected(file.error());
  Result<GgufPointer> gguf = read_header(path, file->get());
  if (!gguf) return tl::unexpected(gguf.error());
  if (Status aligned = check_alignment(path, gguf->get()); !aligned) return tl::unexpected(aligned.error());
  Result<MappedFile> mapped = map_file(path, file->get());
  if (!mapped) return tl::unexpected(mapped.error());

  auto mapping = std::make_shared<Mapping>();
  mapping->path = path;
  mapping->gguf = std::move(*gguf);
  mapping->file = std::move(*mapped);
  mapping->hash = hash_of(mapping->file.bytes());
  if (Status read = mapping->read_tensors(); !read) return tl::unexpected(read.error());
  return GgufFile(std::move(mapping));
}

const std::string& GgufFile::path() const { return mapping_->path; }

const std::string& GgufFile::hash() const { return mapping_->hash; }

std::uint64_t GgufFile::bytes() const { return mapping_->file.bytes().size(); }

void GgufFile::forget(const std::byte* data, std::size_t bytes) const {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const std::uintptr_t first = (reinterpret_cast<std::uintptr_t>(data) + page - 1) / page * page;
  const std::uintptr_t last = (reinterpret_cast<std::uintptr_t>(data) + bytes) / page * page;
  // The mapping is read-only, so its pages can be read again from the file.
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

std::span<const GgufTensor> GgufFile::tensors() const { return mapping_->tensors; }

const GgufTensor* GgufFile::find(const std::string& name) const {
  const auto found = mapping_->index.find(name);
  return found == mapping_->index.end() ? nullptr : &mapping_->tensors[found->second];
}

bool GgufFile::has(const std::string& key) const { return gguf_find_key(mapping_->gguf.get(), key.c_str()) >= 0; }

// The getters of libgguf abort on a missing key or another type: both are checked first.
Result<std::string> GgufFile::string(const std::string& key) const {
  const Result<std::int64_t> id = mapping_->find_key(key);
  if (!id) return tl::unexpected(id.error());
  const gguf_context* gguf = mapping_->gguf.get();
  if (gguf_get_kv_type(gguf, *id) != GGUF_TYPE_STRING) return mapping_->wrong_type(key, *id, "string");
  return gguf_get_val_str(gguf, *id);
}

Result<bool> GgufFile::boolean(const std::string& key) const {
  const Result<std::int64_t> id = mapping_->find_key(key);
  if (!id) return tl::unexpected(id.error());
  const gguf_context* gguf = mapping_->gguf.get();
  if (gguf_get_kv_type(gguf, *id) != GGUF_TYPE_BOOL) return mapping_->wrong_type(key, *id, "bool");
  return gguf_get_val_bool(gguf, *id);
}

Result<std::int64_t> GgufFile::integer(const std::string& key) const {
  const Result<std::int64_t> id = mapping_->find_key(key);
  if (!id) return tl::unexpected(id.error());
  const gguf_context* gguf = mapping_->gguf.get();
  switch (gguf_get_kv_type(gguf, *id)) {
    case GGUF_TYPE_UINT8:
      return gguf_get_val_u8(gguf, *id);
    case GGUF_TYPE_INT8:
      return gguf_get_val_i8(gguf, *id);
    case GGUF_TYPE_UINT16:
      return gguf_get_val_u16(gguf, *id);
    case GGUF_TYPE_INT16:
      return gguf_get_val_i16(gguf, *id);
    case GGUF_TYPE_UINT32:
      return gguf_get_val_u32(gguf, *id);
    case GGUF_TYPE_INT32:
      return gguf_get_val_i32(gguf, *id);
    case GGUF_TYPE_INT64:
      return gguf_get_val_i64(gguf, *id);
    case GGUF_TYPE_UINT64: {
      const std::uint64_t value = gguf_get_val_u64(gguf, *id);
      if (std::in_range<std::int64_t>(value)) return static_cast<std::int64_t>(value);
      return fail_in(path(), ErrorKind::bad_input, fmt::format("key '{}' is {}: out of range", key, value));
    }
    default:
      return mapping_->wrong_type(key, *id, "integer");
  }
}

Result<double> GgufFile::number(const std::string& key) const {
  const Result<std::int64_t> id = mapping_->find_key(key);
  if (!id) return tl::unexpected(id.error());
  const gguf_context* gguf = mapping_->gguf.get();
  switch (gguf_get_kv_type(gguf, *id)) {
    case GGUF_TYPE_FLOAT32:
      return static_cast<double>(gguf_get_val_f32(gguf, *id));
    case GGUF_TYPE_FLOAT64:
      return gguf_get_val_f64(gguf, *id);
    case GGUF_TYPE_STRING:
    case GGUF_TYPE_BOOL:
    case GGUF_TYPE_ARRAY:
      return mapping_->wrong_type(key, *id, "number");
    default:
      return integer(key).map([](std::int64_t value) { return static_cast<double>(value); });
  }
}

}  // namespace a2sf
