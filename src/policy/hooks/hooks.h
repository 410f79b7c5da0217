// The hooks of the registry: one function and one file each, which says the rule and its source.
#pragma once

#include <a2sf/hook.h>

#include <memory>

namespace a2sf {

std::shared_ptr<const HookFactory> shared_budget();
std::shared_ptr<const HookFactory> snapkv();
std::shared_ptr<const HookFactory> adakv();
std::shared_ptr<const HookFactory> pyramidkv();
std::shared_ptr<const HookFactory> keydiff();
std::shared_ptr<const HookFactory> expected();
std::shared_ptr<const HookFactory> tova_mean();
std::shared_ptr<const HookFactory> vatp();
std::shared_ptr<const HookFactory> redundancy();
std::shared_ptr<const HookFactory> merge();
std::shared_ptr<const HookFactory> lazy();
std::shared_ptr<const HookFactory> multi();
std::shared_ptr<const HookFactory> learned();

}  // namespace a2sf
