// All of a server but HTTP: what it serves, and the thread that computes.
#pragma once

#include <memory>
#include <string>

#include "serve/engine.h"
#include "serve/metrics.h"
#include "serve/reader.h"

namespace a2sf::serve {

struct ServiceOptions {
  ReaderOptions reader;
  SchedulerLimits limits;
};

class Service {
 public:
  // `notify`: as Engine has it.
  Service(const ServiceOptions& options, std::shared_ptr<const Model> model, Tokenizer tokenizer,
          Scheduler::Notify notify);

  const Tokenizer& tokenizer() const { return tokenizer_; }
  const RequestReader& reader() const { return reader_; }
  Engine& engine() { return engine_; }
  Metrics& metrics() { return metrics_; }

  // The documents of /v1/models, /props and /tokenizer_info.
  std::string models() const;
  std::string props() const;
  std::string tokenizer_info() const;

 private:
  const ServiceOptions options_;
  const std::shared_ptr<const Model> model_;
  const Tokenizer tokenizer_;
  Metrics metrics_;
  RequestReader reader_;
  Engine engine_;  // the last: its thread uses all the others
};

}  // namespace a2sf::serve
