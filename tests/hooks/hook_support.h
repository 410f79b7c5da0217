// What the tests of hooks share: tiny models on every device, and hooks made of functions.
#pragma once

#include <a2sf/hook.h>
#include <a2sf/session.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "policy/retention.h"
#include "support/devices.h"
#include "support/tiny_model.h"

namespace a2sf::test {

using Tokens = std::vector<std::int32_t>;
using Floats = std::vector<float>;

constexpr int kHeads = 4, kKvHeads = 2, kGroup = 2, kHeadDim = 16, kVocabulary = 128;  // of TinyModel
constexpr int kWindow = 12;                                                            // of "gemma3"

// "llama" has two layers; "gemma3" five with a window and one without.
inline TinyModel sizes_of(const std::string& architecture) {
  if (architecture == "gemma3") return {.architecture = "gemma3", .layers = 6, .context = 128, .window = kWindow};
  return {.architecture = architecture};
}

// Loaded once.
inline std::shared_ptr<const Model> tiny(const Device& device, const std::string& architecture = "llama") {
  static std::map<std::string, std::shared_ptr<const Model>> models;
  const std::string name = device.name + "-" + architecture;
  if (const auto found = models.find(name); found != models.end()) return found->second;
  const std::string path = write_tiny_model(sizes_of(architecture), temporary_path("hooks-" + name + ".gguf"));
  auto model = Model::load(path, device.options).value();
  std::filesystem::remove(path);
  return models[name] = std::move(model);
}

class OnEveryDevice : public testing::TestWithParam<Device> {
 protected:
  static std::shared_ptr<const Model> model(const std::string& architecture = "llama") {
    return tiny(GetParam(), architecture);
  }
};

#define A2SF_ON_EVERY_DEVICE(Suite)                                           \
  INSTANTIATE_TEST_SUITE_P(Devices, Suite, testing::ValuesIn(host_devices()), \
                           [](const auto& device) { return device.param.name; })

inline Tokens random_tokens(std::size_t count, unsigned seed = 7) {
  std::mt19937 random(seed);
  Tokens tokens(count);
  for (auto& token : tokens) token = static_cast<std::int32_t>(random() % kVocabulary);
  return tokens;
}

// ---- hooks made of functions

// What a hook does; nothing where there is no function. Functions are copied with the hook, and what they captured by
// value with them.
struct Calls {
  std::function<void(HookLayer&)> evict;
  std::function<void(HookLayer&)> observe;
  std::function<void(int layer, int kv_head, const Eviction&)> left;
};

class HookOfCalls final : public Hook {
 public:
  explicit HookOfCalls(Calls calls) : calls_(std::move(calls)) {}
  void evict(HookLayer& layer) override {
    if (calls_.evict) calls_.evict(layer);
  }
  void observe(HookLayer& layer) override {
    if (calls_.observe) calls_.observe(layer);
  }
  void left(int layer, int kv_head, const Eviction& eviction) override {
    if (calls_.left) calls_.left(layer, kv_head, eviction);
  }
  std::unique_ptr<Hook> clone() const override { return std::make_unique<HookOfCalls>(*this); }

 private:
  Calls calls_;
};

class FactoryOfCalls final : public HookFactory {
 public:
  explicit FactoryOfCalls(Calls calls, HookNeeds needs = {}) : calls_(std::move(calls)), needs_(needs) {}
  std::string_view name() const override { return "test-hook"; }
  HookNeeds needs() const override { return needs_; }
  std::unique_ptr<Hook> make(const HookShape&) const override { return std::make_unique<HookOfCalls>(calls_); }

 private:
  Calls calls_;
  HookNeeds needs_;
};

// The spec of a hook under the options of a policy text: "budget=9:sink=2".
inline PolicySpec hooked(std::shared_ptr<const HookFactory> factory, const std::string& options) {
  PolicySpec spec = parse_policy("shared-budget:" + options).value();
  spec.name = factory->name();
  std::get<Hooked>(spec.score).factory = std::move(factory);
  return spec;
}
inline PolicySpec hooked(Calls calls, const HookNeeds& needs, const std::string& options) {
  return hooked(std::make_shared<FactoryOfCalls>(std::move(calls), needs), options);
}

// The slot that goes first by score among those that may go; -1: none.
inline int lowest_score(const HookHead& head) {
  int lowest = -1;
  for (int slot = 0; slot < head.slots(); ++slot) {
    if (!head.may_go(slot)) continue;
    if (lowest < 0 || goes_before(head.score(slot), head.position(slot), head.score(lowest), head.position(lowest)))
      lowest = slot;
  }
  return lowest;
}

inline void evict_lowest_scores(HookLayer& layer) {
  for (int h = 0; h < layer.kv_heads(); ++h) {
    HookHead& head = layer.head(h);
    while (head.held() > head.budget()) head.evict(lowest_score(head));
  }
}

template <class Do>
void for_each_held(const HookHead& head, Do act) {
  for (int slot = 0; slot < head.slots(); ++slot) {
    if (head.position(slot) >= 0) act(slot);
  }
}

// ---- sessions

inline Session session_of(const PolicySpec& spec, std::shared_ptr<const Model> model, KvType type = KvType::f16) {
  auto session = Session::create(std::move(model), {spec, type});
  if (!session) throw std::runtime_error(session.error().message);
  return std::move(*session);
}
inline Session session_of(const std::string& spec, std::shared_ptr<const Model> model, KvType type = KvType::f16) {
  return session_of(parse_policy(spec).value(), std::move(model), type);
}

// The logits of every token, fed `chunk` tokens a call.
inline Floats feed_in(Session& session, std::span<const std::int32_t> tokens, std::size_t chunk) {
  Floats all;
  for (std::size_t done = 0; done < tokens.size(); done += chunk) {
    const Status fed = session.feed(tokens.subspan(done, std::min(chunk, tokens.size() - done)), WantLogits::all);
    EXPECT_TRUE(fed) << (fed ? "" : fed.error().message);
    all.insert(all.end(), session.logits().begin(), session.logits().end());
  }
  return all;
}
inline Floats feed_all(Session& session, const Tokens& tokens) { return feed_in(session, tokens, tokens.size()); }

inline bool same_bytes(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

template <class Check>
void for_each_head(const Model& model, Check check) {
  for (int layer = 0; layer < model.info().layers; ++layer) {
    for (int h = 0; h < model.info().kv_heads; ++h) check(layer, h);
  }
}

using HeadKey = std::pair<int, int>;  // layer, KV head

// The record of every head, drained.
inline std::map<HeadKey, std::vector<Eviction>> all_evictions(Session& session, const Model& model) {
  std::map<HeadKey, std::vector<Eviction>> all;
  for_each_head(model, [&](int layer, int h) {
    if (auto evictions = session.evictions(layer, h); !evictions.empty()) all[{layer, h}] = std::move(evictions);
  });
  return all;
}

// Who went, and when.
inline std::vector<std::pair<int, int>> victims_of(std::span<const Eviction> evictions) {
  std::vector<std::pair<int, int>> victims;
  for (const Eviction& eviction : evictions) victims.emplace_back(eviction.step, eviction.position);
  return victims;
}

// An observer made of functions.
class Onlooker : public ShadowObserver {
 public:
  std::function<void(const HookLayer&)> on_row;
  std::function<void(int, int, const Eviction&)> on_left;
  std::function<void(const ShadowRow&)> on_outputs;

  void observe(const HookLayer& layer) override {
    if (on_row) on_row(layer);
  }
  void left(int layer, int kv_head, const Eviction& eviction) override {
    if (on_left) on_left(layer, kv_head, eviction);
  }
  void outputs(const ShadowRow& row) override {
    if (on_outputs) on_outputs(row);
  }
};

}  // namespace a2sf::test
