// What an evaluation came to, for people.
#pragma once

#include "eval/evaluation.h"

#include <string>
#include <vector>

namespace a2sf::app {

// One table for each kind of task, then the differences between two policies.
std::string eval_tables(const Evaluation& evaluation, const std::vector<PolicySpec>& specs);

}  // namespace a2sf::app
