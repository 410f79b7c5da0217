// A process that may run on one core only, while the object lives.
#pragma once

#include <sched.h>

#include <stdexcept>

namespace a2sf::test {

class OneCore {
 public:
  OneCore() {
    cpu_set_t one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof all_, &all_) != 0) throw std::runtime_error("the affinity cannot be read");
    for (int core = 0; CPU_COUNT(&one) == 0; ++core) {
      if (CPU_ISSET(core, &all_)) CPU_SET(core, &one);
    }
    if (sched_setaffinity(0, sizeof one, &one) != 0) throw std::runtime_error("the affinity cannot be set");
  }
  ~OneCore() { sched_setaffinity(0, sizeof all_, &all_); }
  OneCore(const OneCore&) = delete;
  OneCore& operator=(const OneCore&) = delete;

  int cores_before() const { return CPU_COUNT(&all_); }

 private:
  cpu_set_t all_;
};

}  // namespace a2sf::test
