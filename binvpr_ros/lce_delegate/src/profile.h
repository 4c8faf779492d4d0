// SPDX-License-Identifier: Apache-2.0
// How long operators take, and the parts of a layer.
#pragma once

#include <chrono>
#include <cstdint>

namespace binvpr {

inline std::int64_t nanoseconds_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Nanoseconds of an operator's runs. Parts are those of one thread, and of layers alone: the staging of input is measured,
// counting and output are sampled.
struct Times {
  std::int64_t runs = 0, total = 0, staging = 0, counting = 0, output = 0;
};

// Measures one tile of eight, where a profile is wanted: a clock takes a tenth of the time of a tile.
class TileTimer {
 public:
  TileTimer(Times* times, int tile) : times_(tile % 8 == 0 ? times : nullptr) {
    if (times_ != nullptr) since_ = nanoseconds_now();
  }

  ~TileTimer() {
    if (times_ != nullptr) times_->output += nanoseconds_now() - since_;
  }

  TileTimer(const TileTimer&) = delete;
  TileTimer& operator=(const TileTimer&) = delete;

  // What follows is output.
  void counted() {
    if (times_ == nullptr) return;
    const std::int64_t now = nanoseconds_now();
    times_->counting += now - since_;
    since_ = now;
  }

 private:
  Times* times_;
  std::int64_t since_ = 0;
};

}  // namespace binvpr
