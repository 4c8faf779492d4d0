// SPDX-License-Identifier: Apache-2.0
// Plain loops of decoding.cc that compilers make vectors of; each kernel's file includes them and so compiles them for
// its own processor.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernel.h"

namespace binvpr {
namespace {

inline void loop_likely(const std::int8_t* logits, std::size_t columns, const Powers& powers, std::int32_t* heat,
                        std::size_t stride) {
  for (std::size_t column = 0; column < columns; ++column, logits += kLogits, heat += kCell) {
    std::int8_t best = INT8_MIN;
    for (std::size_t i = 0; i < kPositions; ++i) best = std::max(best, logits[i]);
    const int none = logits[kPositions];
    if (none - best >= powers.hopeless) continue;
    const int top = std::max<int>(best, none);
    std::int32_t power[kPositions];
    for (std::size_t i = 0; i < kPositions; ++i) power[i] = powers.of[top - logits[i]];
    std::int32_t total = powers.of[top - none];
    for (std::size_t i = 0; i < kPositions; ++i) total += power[i];
    const float scale = 1.0F / static_cast<float>(total);
    for (std::size_t y = 0; y < kCell; ++y) {
      for (std::size_t x = 0; x < kCell; ++x) {
        const float likely = static_cast<float>(power[y * kCell + x]) * scale;
        std::memcpy(heat + y * stride + x, &likely, sizeof(likely));
      }
    }
  }
}

// std::max takes addresses, of which GCC makes no vectors.
inline std::int32_t higher(std::int32_t a, std::int32_t b) { return a > b ? a : b; }

inline void loop_highest(const std::int32_t* __restrict heat, std::size_t blocks, std::int32_t* __restrict highest) {
  static_assert(kNear == 2);
  for (std::size_t x = 0; x < blocks * kPixelBlock; ++x) {
    const std::int32_t* at = heat + x;
    highest[x] = higher(higher(higher(at[-2], at[-1]), higher(at[1], at[2])), at[0]);
  }
}

inline void loop_peaks(const std::int32_t* __restrict heat, const std::int32_t* const* around, std::int32_t least,
                       std::size_t blocks, std::uint8_t* __restrict flags) {
  static_assert(kNear == 2);
  const std::int32_t *before = around[0], *before2 = around[1], *after = around[2], *after2 = around[3];
  for (std::size_t x = 0; x < blocks * kPixelBlock; ++x) {
    const std::int32_t* at = heat + x;
    // All before are lower, and none after is higher.
    const std::int32_t lower = higher(higher(before[x], before2[x]), higher(at[-2], at[-1]));
    const std::int32_t no_higher = higher(higher(after[x], after2[x]), higher(at[1], at[2]));
    flags[x] = static_cast<std::uint8_t>((at[0] > lower) & (at[0] >= higher(no_higher, least)));
  }
}

inline void loop_interpolate(const std::int8_t* const* corners, const int* weights, std::size_t bits,
                             std::uint8_t* packed) {
  const std::int8_t *a = corners[0], *b = corners[1], *c = corners[2], *d = corners[3];
  const auto wa = static_cast<std::int16_t>(weights[0]), wb = static_cast<std::int16_t>(weights[1]);
  const auto wc = static_cast<std::int16_t>(weights[2]), wd = static_cast<std::int16_t>(weights[3]);
  alignas(64) std::uint8_t signs[kBitBlock];
  for (std::size_t first = 0; first < bits; first += kBitBlock) {
    const std::size_t count = std::min(kBitBlock, bits - first);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t k = first + i;
      // Weights sum up to 256, so that this fits.
      const auto value = static_cast<std::int16_t>(a[k] * wa + b[k] * wb + c[k] * wc + d[k] * wd);
      signs[i] = value >= 0;
    }
    for (std::size_t i = 0; i < count; i += 8) {
      std::uint64_t eight;
      std::memcpy(&eight, signs + i, sizeof(eight));
      // Bit 8 k goes to bit 63 - k, and nothing else comes there.
      packed[(first + i) / 8] = static_cast<std::uint8_t>(eight * 0x8040201008040201U >> 56);
    }
  }
}

constexpr DecodingKernel kDecodingLoops = {loop_likely, loop_highest, loop_peaks, loop_interpolate};

}  // namespace
}  // namespace binvpr
