#include <a2sf/hook.h>

namespace a2sf {

Result<std::shared_ptr<const HookFactory>> HookFactory::with(std::string_view option, std::string_view) const {
  return fail(ErrorKind::bad_input, std::string(name()) + " has no option '" + std::string(option) + "'");
}

}  // namespace a2sf
