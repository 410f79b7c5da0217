// Opens the metadata of a GGUF file and makes sure that libllama can read its vocabulary without aborting.
#pragma once

#include <a2sf/result.h>
#include <gguf.h>

#include <memory>
#include <string>

namespace a2sf::text {

struct FreeGguf {
  void operator()(gguf_context* context) const { gguf_free(context); }
};
using GgufMetadata = std::unique_ptr<gguf_context, FreeGguf>;

Result<GgufMetadata> open_vocabulary_file(const std::string& path);

}  // namespace a2sf::text
