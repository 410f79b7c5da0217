// Continues a prompt with a KV cache of 128 tokens per head: embed MODEL.gguf [PROMPT]
#include <a2sf/a2sf.h>

#include <cstdlib>
#include <iostream>
#include <type_traits>
#include <utility>

template <class T>
T or_exit(a2sf::Result<T> result) {
  if (!result) {
    std::cerr << "embed: " << result.error().message << '\n';
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

int main(int argc, char** argv) {
  if (argc < 2) return std::cerr << "usage: embed MODEL.gguf [PROMPT]\n", 2;
  const auto model = or_exit(a2sf::Model::load(argv[1]));
  const auto tokenizer = or_exit(a2sf::Tokenizer::load(argv[1]));
  auto sampler = or_exit(a2sf::Sampler::create(tokenizer, {}));

  a2sf::SessionOptions options;
  options.policy = or_exit(a2sf::parse_policy("a2sf:budget=128"));
  auto session = or_exit(a2sf::Session::create(model, options));

  or_exit(session.feed(or_exit(tokenizer.encode(argc > 2 ? argv[2] : "The capital of France is", true, false))));
  for (int i = 0; i < 32; ++i) {
    const a2sf::Token token = sampler.sample(session.logits());
    if (tokenizer.is_end_of_generation(token)) break;
    std::cout << tokenizer.piece(token) << std::flush;
    or_exit(session.feed({&token, 1}));
  }
  std::cout << "\nKV cache: " << session.kv_bytes() / 1024 << " KiB\n";
}
