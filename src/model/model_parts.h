// What a Model owns.
#pragma once

#include <a2sf/model.h>

#include "model/forward.h"

namespace a2sf {

struct Model::Parts {
  Weights weights;
  std::unique_ptr<Backend> backend;
  mutable Forward forward;

  Parts(Weights loaded, std::unique_ptr<Backend> device)
      : weights(std::move(loaded)), backend(std::move(device)), forward(weights, *backend) {}
};

}  // namespace a2sf
