// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace binvpr {

// Reads the options of a custom operator, a flexbuffer map from names to integers of at most 32 bits. No bytes at all
// are an empty map. Every offset is checked: the bytes come from a file that may be damaged. Throws Refusal.
// Format: https://flatbuffers.dev/internals/ (section FlexBuffers).
std::map<std::string, std::int32_t> read_options(const std::uint8_t* bytes, std::size_t size);

// The options of one operator, taken one by one until none may be left. All throw Refusal.
class OptionTaker {
 public:
  OptionTaker(std::string owner, const std::uint8_t* bytes, std::size_t size)
      : owner_(std::move(owner)), options_(read_options(bytes, size)) {}

  std::int32_t take(const char* name);
  bool take_same_padding();  // or VALID
  void require_none_left() const;

 private:
  std::string owner_;
  std::map<std::string, std::int32_t> options_;
};

}  // namespace binvpr
