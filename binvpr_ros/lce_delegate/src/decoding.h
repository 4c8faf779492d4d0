// SPDX-License-Identifier: Apache-2.0
// Keypoints, their scores and their bits, from what a network says of the cells of an image. local_features/decoding.py
// says the same in NumPy; both give the same bytes, on every processor.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel.h"

namespace binvpr {

constexpr std::size_t kMostCells = 1 << 12;  // a side, so that a pixel's index fits 32 bits
constexpr std::size_t kMostDescriptorBits = 1 << 16;
constexpr std::size_t kMostFeatures = 1 << 30;

// What a network says of [rows][columns] cells of kCell pixels a side.
struct FeatureMaps {
  std::size_t rows;
  std::size_t columns;
  std::size_t bits;                // of a descriptor, a multiple of 8
  const std::int8_t* descriptors;  // [rows][columns][bits], whose signs are the bits once they are interpolated
  const std::int8_t* keypoints;    // [rows][columns][kLogits]
  const std::int8_t* reliability;  // [rows][columns], logits
};

// Where results go; there is room for the most that are wanted, or for all pixels where they are fewer.
struct DecodedFeatures {
  float* points;              // [count][2], x and y
  float* scores;              // [count]
  std::uint8_t* descriptors;  // [count][bits / 8], the first bit in the highest place
};

// Finds the `most` best features, at the most, in the top left [height][width] pixels of what the maps are of. The best
// one comes first. Returns how many there are.
std::size_t decode_features(const Kernel& kernel, const FeatureMaps& maps, std::size_t width, std::size_t height,
                            std::size_t most, const DecodedFeatures& found);

}  // namespace binvpr
