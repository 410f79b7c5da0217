// Several sequences in one step, for whoever schedules them: the results of each, without a copy.
#pragma once

#include <a2sf/session.h>

#include <cstddef>
#include <memory>
#include <span>

namespace a2sf {

// Owns the buffers of its steps and hands out what came of the last one, feed by feed. It grows with the largest step
// and takes no memory for the next of that size. Not thread safe; the sessions of a step belong to it while run() does.
class Batch {
 public:
  Batch() noexcept;
  Batch(Batch&&) noexcept;
  Batch& operator=(Batch&&) noexcept;
  ~Batch();

  // Extends the feeds' sequences as Session::step does, with the same bytes and the same limits. An error: the step
  // could not start, there are no results, and nothing has changed in any session. A sequence that fails in the step
  // is no error here: its status says so, and the others' results stand.
  //
  // Afterwards Session::logits() is empty, except where a feed asks with `keep_logits`.
  Status run(std::span<const Feed> feeds);

  // Of feed i of the last run(), which must have started. The views are valid until the next run() and while this
  // object lives, whatever becomes of the sessions.
  const Status& status(std::size_t i) const;           // why the sequence failed, if it did: Session::failure()
  std::span<const float> logits(std::size_t i) const;  // [rows wanted][vocabulary]; none after a failure
  // Of each token of Feed::next, in nats, by the softmax over the whole vocabulary: [next]; none after a failure. The
  // device computes them, so that a row of logits goes nowhere that is not wanted as such.
  std::span<const double> log_probabilities(std::size_t i) const;

  struct State;  // private to the library
 private:
  std::unique_ptr<State> state_;  // nullptr before the first run()
};

}  // namespace a2sf
