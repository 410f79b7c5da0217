// A function call with a stack as large as the caller asks for.
#pragma once

#include <cstddef>
#include <functional>

namespace a2sf::text {

// Runs `function` on a thread of its own and waits for it. False, and nothing was run, if there is no room for the
// stack. Only the part of the stack that is used takes memory. `function` must not throw.
bool run_on_stack(std::size_t bytes, const std::function<void()>& function);

}  // namespace a2sf::text
