// a2sf tune --classes: token classes of a model, and how each is remembered.
#pragma once

#include "options.h"

#include <string>
#include <vector>

namespace a2sf::app {

inline constexpr const char* kClassBudget = "128";

// The options of tune, as far as they say something of classes.
struct ClassTuning {
  ModelFlags model;
  OutputFlags output;
  std::vector<PolicySpec> policies;
  std::string budgets;               // empty: kClassBudget
  std::string text, file;            // what to tune on; the classes, empty: beside the model's file
  std::size_t longest, windows = 0;  // tokens of a window
  std::size_t calls = 0;             // 0: the standard
};

void add_class_mode(CLI::App* command, std::string* text);
void tune_classes(const ClassTuning& tuning);

}  // namespace a2sf::app
