// Work in a process of its own, so that its peak memory is its own.
#pragma once

#include <functional>
#include <string>

namespace a2sf::app {

// Runs `work` in a forked process and returns what it returned. A Failure there is raised here; Ctrl-C ends both. The
// caller must not have started threads.
std::string run_in_child(const std::function<std::string()>& work);

// The most memory this process ever had resident.
std::size_t peak_rss_bytes();

}  // namespace a2sf::app
