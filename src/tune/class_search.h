// The memory and the weight of each token class, found by trying them on a text.
#pragma once

#include <a2sf/token_classes.h>

#include "tune/damage.h"

namespace a2sf {

struct ClassSearch {
  PolicySpec policy;       // with its budget; it scores tokens
  std::size_t calls = 60;  // how often the text is read, at most
};

// The factors of least log-loss that the search meets, from 1/16 to 16, and no worse than 1 everywhere. By the subplex
// method (subplex.h) over their logarithms. The last class has weight 1: only the proportions of weights matter.
// `progress` counts tokens; the search may end before.
Result<TokenClasses> search_classes(const std::shared_ptr<const Model>& model, const TuneWindows& windows,
                                    TokenClasses classes, const ClassSearch& search, const TuneProgress& progress = {});

}  // namespace a2sf
