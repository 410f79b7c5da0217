#include "text/deep_stack.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

namespace a2sf::text {
namespace {

void* call(void* function) {
  (*static_cast<const std::function<void()>*>(function))();
  return nullptr;
}

bool run_on(void* stack, std::size_t bytes, const std::function<void()>& function) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_t thread;
  void* const argument = const_cast<std::function<void()>*>(&function);
  const bool started = pthread_attr_setstack(&attributes, stack, bytes) == 0 &&
                       pthread_create(&thread, &attributes, call, argument) == 0;
  if (started) pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  return started;
}

}  // namespace

bool run_on_stack(std::size_t bytes, const std::function<void()>& function) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  bytes = (bytes + 2 * page - 1) / page * page;
  // Without MAP_NORESERVE the kernel may refuse a stack of which a small part will be used.
  void* const stack =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return false;
  // The lowest page is the guard: running over it must not write into foreign memory.
  const bool ran = mprotect(stack, page, PROT_NONE) == 0 && run_on(stack, bytes, function);
  munmap(stack, bytes);
  return ran;
}

}  // namespace a2sf::text
