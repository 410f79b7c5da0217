// Factories of hooks that have one option, a number.
#pragma once

#include <a2sf/hook.h>

#include <fmt/format.h>

#include <memory>
#include <string>
#include <string_view>

#include "policy/hooks/options.h"

namespace a2sf {

struct NumberOption {
  const char* name;
  double least, most, standard;
};

template <class Factory>
class NumberOptionFactory : public HookFactory {
 public:
  Result<std::shared_ptr<const HookFactory>> with(std::string_view option, std::string_view value) const override {
    if (option != option_.name) return HookFactory::with(option, value);
    const auto number = read_number(option, value, option_.least, option_.most);
    if (!number) return tl::unexpected(number.error());
    auto changed = std::make_shared<Factory>(static_cast<const Factory&>(*this));
    changed->number_ = *number;
    return changed;
  }
  std::string options() const override {
    return number_ == option_.standard ? "" : fmt::format(":{}={}", option_.name, number_);
  }

 protected:
  explicit NumberOptionFactory(const NumberOption& option) : option_(option), number_(option.standard) {}
  double number() const { return number_; }

 private:
  NumberOption option_;
  double number_;
};

}  // namespace a2sf
