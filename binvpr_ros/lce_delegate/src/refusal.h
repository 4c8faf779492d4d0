// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

namespace binvpr {

// What the delegate cannot run; the message is one sentence for the user and never leaves the library as an exception.
class Refusal : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline void require(bool condition, const char* message) {
  if (!condition) throw Refusal(message);
}

inline void require(bool condition, const std::string& message) {
  if (!condition) throw Refusal(message);
}

}  // namespace binvpr
