// SPDX-License-Identifier: Apache-2.0
// For each row of bits the nearest of others, and for each of these the nearest of the rows: what local features are
// matched by.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel.h"

namespace binvpr {

constexpr std::size_t kMostMatchWords = 8;   // of 64 bits
constexpr std::size_t kMostMatchRows = 1 << 30;
constexpr std::uint16_t kNoDistance = 65535;
constexpr std::int32_t kNoRow = -1;

// Where results go.
struct Matches {
  std::int32_t* nearest;    // [these], the index of one of those: of several as near, the first
  std::uint16_t* distance;  // [these], to it
  std::uint16_t* second;    // [these], to the second nearest, which may be as near
  std::int32_t* back;       // [those], the index of the nearest of these
};

// Compares rows [these_count][words] with rows [those_count][words] of one to kMostMatchWords words, of any alignment.
// Where there is nothing to be nearest or second, results are kNoRow and kNoDistance.
void nearest_two(const Kernel& kernel, const std::uint8_t* these, std::size_t these_count, const std::uint8_t* those,
                 std::size_t those_count, std::size_t words, const Matches& matches);

}  // namespace binvpr
