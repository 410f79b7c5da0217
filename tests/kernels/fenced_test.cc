#include "kernels/fenced/fenced_memory.h"

#include <gtest/gtest.h>

#include "kernels/backend.h"

namespace a2sf {
namespace {

TEST(FencedMemory, CanBeUsedWhileItIsOpenOnly) {
  FencedMemory memory;
  std::byte* const data = memory.allocate(100).value();
  {
    const OpenFence open(memory);
    data[99] = std::byte{7};
    { const OpenFence again(memory); }
    EXPECT_EQ(data[99], std::byte{7});
  }
  EXPECT_DEATH(data[99] = std::byte{8}, "");
  memory.release(data, 100);
}

TEST(FencedBackend, ItsStoresOpenTheFenceThemselves) {
  const auto backend = make_fenced_backend({.threads = 1, .isa = {}}).value();
  ResolvedRetention resolved;
  resolved.retention.kv_heads = 1;
  resolved.retention.rules.resize(1);
  resolved.slots = resolved.bounded_slots = SlotPlans(1);
  const auto store = backend->make_sequence({1, 1, 1, 16, KvType::f32, 1, {0}}, std::move(resolved));
  ASSERT_TRUE(store->make_room(4, false));
  EXPECT_GT(store->bytes(), 0U);
  EXPECT_TRUE(store->snapshot(0, 0).empty());
}

}  // namespace
}  // namespace a2sf
