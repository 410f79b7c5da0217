// The hyper-parameters of a GGUF file, checked; no tensor but the embedding's shape and the RoPE factors is looked at.
#pragma once

#include "model/weights.h"

namespace a2sf {

Result<Architecture> read_architecture(const GgufFile& file);

// An error about a file: every message starts with its path.
tl::unexpected<Error> fail_in(const GgufFile& file, ErrorKind kind, const std::string& message);

}  // namespace a2sf
