// a2sf tune --learn and --multi: what hooks of the registry take from a text.
#pragma once

#include "options.h"

namespace a2sf::app {

struct HookTuneFlags {
  ModelFlags model;
  OutputFlags output;
  std::string learn, multi;  // texts
  std::string kind, budget, file;
  std::size_t window, windows, calls, tokens;
};

void add_hook_tune_mode(CLI::App* command, HookTuneFlags* flags);
void tune_learned(const HookTuneFlags& flags);
void tune_multi_weights(const HookTuneFlags& flags);

}  // namespace a2sf::app
