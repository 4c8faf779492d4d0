// SPDX-License-Identifier: Apache-2.0
// Plain loops that every kernel shares; each kernel's file includes them and so compiles them for its own processor.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernel.h"

namespace binvpr {
namespace {

// Words as they are.
inline void loop_stage(const std::int32_t* words, int count, std::uint8_t* staged) {
  std::memcpy(staged, words, static_cast<std::size_t>(count) * sizeof(*words));
}

inline void loop_add_doubled(const std::uint16_t* counts, std::int32_t* sums) {
  for (int i = 0; i < kTileChannels; ++i) sums[i] += 2 * counts[i];
}

// `pack_float` is that of the kernel.
template <typename PackFloat>
inline void loop_to_float(const std::int32_t* doubled, int channels, const RealTransform& transform,
                          const float* shortcut, float* values, std::int32_t* packed, PackFloat pack_float) {
  for (int i = 0; i < channels; ++i) {
    const std::int32_t clamped = std::max(std::min(doubled[i], transform.clamp_max), transform.clamp_min);
    const float value = static_cast<float>(clamped) * transform.multiplier[i] + transform.bias[i];
    values[i] = shortcut != nullptr ? value + shortcut[i] : value;
  }
  if (packed != nullptr) pack_float(values, channels, packed);
}

// `count` and `to_float` are those of the kernel.
template <typename Count, typename ToFloat>
inline void loop_count_to_float(const std::uint8_t* const* pixels, const Run* runs, int run_count,
                                const std::uint8_t* packed, const RealTransform& transform, const FloatTile& tile,
                                Count count, ToFloat to_float) {
  alignas(64) std::uint16_t counts[kTilePixels * kTileChannels];
  alignas(64) std::int32_t doubled[kTileChannels];
  count(pixels, runs, run_count, packed, tile.channels, counts);
  for (std::size_t i = 0; i < static_cast<std::size_t>(tile.pixels); ++i) {
    for (std::size_t c = 0; c < kTileChannels; ++c) doubled[c] = 2 * counts[i * kTileChannels + c];
    to_float(doubled, tile.channels, transform,
             tile.shortcut == nullptr ? nullptr : tile.shortcut + i * tile.shortcut_stride,
             tile.values + i * tile.stride,
             tile.signs == nullptr ? nullptr : tile.signs + i * tile.signs_stride);
  }
}

inline void loop_to_int8(const std::int32_t* doubled, int channels, const RealTransform& transform,
                         std::int8_t* output) {
  for (int i = 0; i < channels; ++i) {
    const std::int32_t clamped = std::max(std::min(doubled[i], transform.clamp_max), transform.clamp_min);
    const float real = static_cast<float>(clamped) * transform.multiplier[i] + transform.bias[i];
    // Half away from zero, as TFLite rounds. Adding the half would round 0.49999997 up; the remainder is exact.
    const float bounded = std::max(-128.0F, std::min(127.0F, real));
    const float whole = std::trunc(bounded);
    const float rest = bounded - whole;
    output[i] = static_cast<std::int8_t>(static_cast<std::int32_t>(whole) + (rest >= 0.5F) - (rest <= -0.5F));
  }
}

inline void loop_quantize(const float* values, std::size_t count, float inverse_scale, int zero_point, std::int8_t* output) {
  constexpr float kMost = 1000;        // more is out of bounds all the same
  constexpr float kWhole = 0x1.8p23F;  // a sum with it has no place for fractions
  for (std::size_t i = 0; i < count; ++i) {
    const float scaled = values[i] * inverse_scale;
    const float below = scaled < kMost ? scaled : kMost;  // also what is no number
    const float bounded = below > -kMost ? below : -kMost;
    const int rounded = static_cast<int>((bounded + kWhole) - kWhole) + zero_point;
    output[i] = static_cast<std::int8_t>(std::max(-128, std::min(127, rounded)));
  }
}

// `is_one` says of a value whether its bit is 1.
template <typename T, typename IsOne>
inline void loop_pack(const T* values, int count, std::int32_t* words, IsOne is_one) {
  for (int start = 0; start < count; start += kWordBits) {
    const int length = std::min(kWordBits, count - start);
    std::uint32_t word = 0;
    for (int i = 0; i < length; ++i) word |= static_cast<std::uint32_t>(is_one(values[start + i])) << i;
    words[start / kWordBits] = static_cast<std::int32_t>(word);
  }
}

inline void loop_pack_float(const float* values, int count, std::int32_t* words) {
  loop_pack(values, count, words, [](float value) { return value <= kNegative; });
}

inline void loop_pack_int8(const std::int8_t* values, int count, std::int8_t zero_point, std::int32_t* words) {
  loop_pack(values, count, words, [zero_point](std::int8_t value) { return value < zero_point; });
}

// Filters for look-ups by nibbles: [word][byte][channel], a byte each.
inline void loop_pack_bytes(const std::int32_t* const* filters, const std::vector<Run>& runs,
                            std::vector<std::uint8_t>& packed) {
  int words = 0;
  for (const Run& run : runs) words += run.words;
  const std::size_t before = packed.size();
  packed.resize(before + 4 * kTileChannels * static_cast<std::size_t>(words));
  std::uint8_t* to = packed.data() + before;
  for (int word = 0; word < words; ++word, to += 4 * kTileChannels) {
    for (int channel = 0; channel < kTileChannels; ++channel) {
      const auto bits = filters[channel] ? static_cast<std::uint32_t>(filters[channel][word]) : 0U;
      for (int byte = 0; byte < 4; ++byte) to[byte * kTileChannels + channel] = static_cast<std::uint8_t>(bits >> 8 * byte);
    }
  }
}

// Filters of eight bits for products of two values: [run][pair][channel][2], runs filled up with zeros.
inline void loop_pack_pairs(const std::int32_t* const* filters, const std::vector<Run>& runs,
                            std::vector<std::uint8_t>& packed) {
  int first = 0;
  for (const Run& run : runs) {
    for (int pair = 0; pair < run.words; pair += 2) {
      for (int channel = 0; channel < kTileChannels; ++channel) {
        for (int i = pair; i < pair + 2; ++i) {
          const bool there = filters[channel] != nullptr && i < run.words;
          const auto weight = static_cast<std::int16_t>(there ? filters[channel][first + i] : 0);
          packed.push_back(static_cast<std::uint8_t>(weight));
          packed.push_back(static_cast<std::uint8_t>(weight >> 8));
        }
      }
    }
    first += run.words;
  }
}

// The same for products of four: [run][quad][channel][4], a byte each.
inline void loop_pack_quads(const std::int32_t* const* filters, const std::vector<Run>& runs,
                            std::vector<std::uint8_t>& packed) {
  int first = 0;
  for (const Run& run : runs) {
    for (int quad = 0; quad < run.words; quad += 4) {
      for (int channel = 0; channel < kTileChannels; ++channel) {
        for (int i = quad; i < quad + 4; ++i) {
          const bool there = filters[channel] != nullptr && i < run.words;
          packed.push_back(static_cast<std::uint8_t>(there ? filters[channel][first + i] : 0));
        }
      }
    }
    first += run.words;
  }
}

inline void loop_stage_bytes(const std::int8_t* values, int count, std::uint8_t* staged) {
  std::memcpy(staged, values, static_cast<std::size_t>(count));
}

// Two bytes each, the lower first.
inline void loop_stage_pairs(const std::int8_t* values, int count, std::uint8_t* staged) {
  for (int i = 0; i < count; ++i) {
    const std::int16_t value = values[i];
    std::memcpy(staged + 2 * i, &value, sizeof(value));
  }
}

inline void loop_combine(const std::int32_t* doubled, int channels, std::int32_t total, const std::int32_t* magnitudes,
                         const std::int32_t* bias, std::int32_t* sums) {
  for (int i = 0; i < channels; ++i) sums[i] = bias[i] + magnitudes[i] * (total - doubled[i]);
}

// The channels from `first` on, of one pixel.
inline void loop_requantize_from(int first, const std::int32_t* sums, int channels, const Requantization& to,
                                 std::int8_t* output) {
  for (int i = first; i < channels; ++i) {
    // The product's upper half, then a division by a power of two, each rounded to nearest, halves upwards.
    const std::int64_t product = std::int64_t{sums[i]} * to.multipliers[i] + (std::int64_t{1} << 30);
    const auto high = static_cast<std::int32_t>(static_cast<std::uint64_t>(product) >> 31);
    const std::int32_t rounded = (high + to.halves[i]) >> to.shifts[i];
    output[i] = static_cast<std::int8_t>(std::max(to.min, std::min(to.max, rounded + to.zero_point)));
  }
}

// `requantize_pixel` is that of the kernel.
template <typename RequantizePixel>
inline void loop_requantize(const std::int32_t* sums, const Requantization& to, const Int8Tile& tile,
                            RequantizePixel requantize_pixel) {
  std::int8_t* output = tile.values;
  for (int pixel = 0; pixel < tile.pixels; ++pixel, sums += kTileChannels, output += tile.stride) {
    requantize_pixel(sums, tile.channels, to, output);
  }
}

// `count`, `combine` and `requantize` are those of the kernel.
template <typename Count, typename Combine, typename Requantize>
inline void loop_count_to_int8(const std::uint8_t* const* pixels, const Run* runs, int run_count,
                               const std::uint8_t* packed, const std::int32_t* totals, const std::int32_t* magnitudes,
                               const std::int32_t* bias, const Requantization& to, const Int8Tile& tile, Count count,
                               Combine combine, Requantize requantize) {
  alignas(64) std::uint16_t counts[kTilePixels * kTileChannels];
  alignas(64) std::int32_t doubled[kTileChannels];
  alignas(64) std::int32_t sums[kTilePixels * kTileChannels];
  count(pixels, runs, run_count, packed, tile.channels, counts);
  for (int i = 0; i < tile.pixels; ++i) {
    for (int c = 0; c < kTileChannels; ++c) doubled[c] = 2 * counts[i * kTileChannels + c];
    combine(doubled, tile.channels, totals[i], magnitudes, bias, sums + i * kTileChannels);
  }
  requantize(sums, to, tile);
}

// `sum_products` adds to bias[channel] the product of the pixel's staged values and the filter, into
// sums[pixel * kTileChannels + channel].
template <typename SumProducts, typename Requantize>
inline void loop_multiply(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                          const std::int32_t* bias, const Requantization& to, const Int8Tile& tile,
                          SumProducts sum_products, Requantize requantize) {
  alignas(64) std::int32_t sums[kTilePixels * kTileChannels];
  sum_products(pixels, runs, run_count, packed, tile.channels, bias, sums);
  requantize(sums, to, tile);
}

// The bits in which two descriptors differ. Four sums, since one would wait for itself.
inline std::uint64_t loop_differing_bits(const std::uint8_t* a, const std::uint8_t* b, std::size_t words) {
  const auto differing = [&](std::size_t word) {
    std::uint64_t x, y;
    std::memcpy(&x, a + 8 * word, 8);
    std::memcpy(&y, b + 8 * word, 8);
    return static_cast<unsigned>(__builtin_popcountll(x ^ y));
  };
  std::uint64_t sums[4] = {};
  std::size_t word = 0;
  for (; word + 4 <= words; word += 4) {
    for (std::size_t i = 0; i < 4; ++i) sums[i] += differing(word + i);
  }
  for (; word < words; ++word) sums[0] += differing(word);
  return sums[0] + sums[1] + sums[2] + sums[3];
}

// Of each descriptor the distance to the nearest of `views` queries; while it is compared with them it is in the cache.
// `differing_bits` is loop_differing_bits or the like. A large map comes from memory, which takes longer than counting.
// Processors look ahead no further than to the end of a page, and would wait at each; so what comes a page later is asked
// for here. Beyond the last descriptor that asks for nothing, and does no harm.
template <typename DifferingBits>
inline void loop_hamming(const std::uint8_t* descriptors, std::size_t count, std::size_t words,
                         const std::uint8_t* queries, std::size_t views, std::uint32_t* distances,
                         DifferingBits differing_bits) {
  constexpr std::size_t kAhead = 4096, kCacheLine = 64;
  const std::size_t bytes = 8 * words;
  for (std::size_t i = 0; i < count; ++i, descriptors += bytes) {
    for (std::size_t next = 0; next < bytes; next += kCacheLine) __builtin_prefetch(descriptors + kAhead + next);
    std::uint64_t least = differing_bits(descriptors, queries, words);
    for (std::size_t view = 1; view < views; ++view) {
      least = std::min<std::uint64_t>(least, differing_bits(descriptors, queries + view * bytes, words));
    }
    distances[i] = static_cast<std::uint32_t>(least);
  }
}

inline void loop_hamming(const std::uint8_t* descriptors, std::size_t count, std::size_t words,
                         const std::uint8_t* queries, std::size_t views, std::uint32_t* distances) {
  loop_hamming(descriptors, count, words, queries, views, distances, loop_differing_bits);
}

// Keys of a tile's columns, each of which is followed through all tiles: its position is the tile.
struct TileKeys {
  alignas(64) std::uint16_t least[kTileChannels];
  alignas(64) std::uint16_t second[kTileChannels];
};

// The least over the tile's columns; `keys` are spent.
inline Nearest loop_least(TileKeys& keys) {
  constexpr std::uint32_t kTile = kTileChannels, kPositions = 1U << kPositionBits;
  std::uint32_t least = UINT32_MAX;
  for (std::uint32_t i = 0; i < kTile; ++i) least = std::min(least, std::uint32_t{keys.least[i]} << 16 | i);
  const std::uint32_t column = least % kTile, key = least >> 16;
  keys.least[column] = keys.second[column];
  std::uint16_t second = UINT16_MAX;
  for (const std::uint16_t other : keys.least) second = std::min(second, other);
  return {static_cast<std::int32_t>(key % kPositions * kTile + column), static_cast<std::uint16_t>(key >> kPositionBits),
          static_cast<std::uint16_t>(second >> kPositionBits)};
}

// `count` is that of the kernel.
template <typename Count>
inline void loop_nearest(const std::uint8_t* const* rows, const PackedColumns& columns, int first, std::uint16_t* keys,
                         Nearest* nearest, Count count) {
  TileKeys found[kTilePixels];
  std::memset(found, 0xff, sizeof(found));
  alignas(64) std::uint16_t counts[kTilePixels * kTileChannels];
  const std::uint8_t* packed = columns.packed;
  for (int tile = 0, left = columns.count; left > 0; ++tile, left -= kTileChannels) {
    count(rows, &columns.run, 1, packed, std::min(left, kTileChannels), counts);
    for (int row = 0; row < kTilePixels; ++row) {
      for (int i = left; i < kTileChannels; ++i) counts[row * kTileChannels + i] = kFarthest;
    }
    for (int row = 0; row < kTilePixels; ++row) {
      const std::uint16_t* distances = counts + row * kTileChannels;
      TileKeys& of_row = found[row];
      for (int i = 0; i < kTileChannels; ++i) {
        const auto distance = static_cast<std::uint16_t>(distances[i] << kPositionBits);
        const auto key = static_cast<std::uint16_t>(distance | tile);
        of_row.second[i] = std::min(of_row.second[i], std::max(of_row.least[i], key));
        of_row.least[i] = std::min(of_row.least[i], key);
        keys[i] = std::min(keys[i], static_cast<std::uint16_t>(distance | (first + row)));
      }
    }
    packed += columns.tile_bytes;
    keys += kTileChannels;
  }
  for (int row = 0; row < kTilePixels; ++row) nearest[row] = loop_least(found[row]);
}

}  // namespace
}  // namespace binvpr
