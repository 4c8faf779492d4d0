// SPDX-License-Identifier: Apache-2.0
// Bands of cells go through a window of a few rows of pixels, which stays in the nearest cache.
#include "decoding.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <numeric>
#include <vector>

namespace binvpr {
namespace {

constexpr float kLeastProbable = 0.01F;
constexpr std::size_t kGrid = 6;        // columns and rows over which the features of an image are spread
constexpr std::size_t kFairShares = 2;  // as many as an even spread would give each part come before all others
constexpr double kLogitLevels = 16;     // of a logit, to 1
constexpr double kSigmoidUnit = 1 << 16;
constexpr std::size_t kMargin = kPixelBlock;  // on either side of a row of pixels
static_assert(kMargin >= kNear);

// Integers, or multiples of a power of two: the same on every machine.
struct Tables {
  Powers powers;
  float sigmoids[256];  // by the level of a logit, from -128 on

  Tables() {
    for (int i = 0; i < 256; ++i) {
      powers.of[i] = static_cast<std::int32_t>(std::nearbyint(std::exp(-i / kLogitLevels) * (1 << 20)));
      const double sigmoid = 1 / (1 + std::exp(-(i - 128) / kLogitLevels));
      sigmoids[i] = static_cast<float>(std::nearbyint(kSigmoidUnit * sigmoid) / kSigmoidUnit);
    }
    const auto least = static_cast<std::int32_t>(kLeastProbable * static_cast<float>(powers.of[0]));
    powers.hopeless = static_cast<int>(std::find_if(powers.of, powers.of + 256, [&](std::int32_t power) {
                                         return power < least;
                                       }) - powers.of);
  }
};

const Tables& tables() {
  static const Tables all;
  return all;
}

std::int32_t bits_of(float value) {
  std::int32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float float_of(std::int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Orders features: the higher score is greater, then the pixel that comes first. No two are equal.
using Key = std::uint64_t;

Key key_of(float score, std::size_t pixel) {
  return static_cast<Key>(bits_of(score)) << 32 | (UINT32_MAX - static_cast<std::uint32_t>(pixel));
}

float score_of(Key key) { return float_of(static_cast<std::int32_t>(key >> 32)); }
std::size_t pixel_of(Key key) { return UINT32_MAX - static_cast<std::uint32_t>(key); }

// Rows of pixels, with a margin of zeros that are no keypoints.
template <std::size_t Rows>
class Window {
 public:
  explicit Window(std::size_t width) : stride_(width + 2 * kMargin), values_(Rows * stride_) {}

  std::int32_t* row(std::size_t i) { return &values_[i * stride_ + kMargin]; }
  std::size_t stride() const { return stride_; }

  // Brings the last rows to the top, and makes the others zeros.
  void advance(std::size_t rows) {
    const auto kept = static_cast<std::ptrdiff_t>((Rows - rows) * stride_);
    std::copy(values_.end() - kept, values_.end(), values_.begin());
    std::fill(values_.begin() + kept, values_.end(), 0);
  }

 private:
  std::size_t stride_;
  std::vector<std::int32_t> values_;
};

// Pixels that are the most probable ones near them, by the part of the grid that they are in.
class Peaks {
 public:
  Peaks(std::size_t width, std::size_t height) : width_(width), height_(height), column_parts_(width) {
    for (std::size_t x = 0; x < width; ++x) column_parts_[x] = static_cast<std::uint8_t>(x * kGrid / width);
  }

  // Of row `y` those flagged, [width] up to whole words.
  void add(std::size_t y, const std::uint8_t* flags, const std::int32_t* heat, const std::int8_t* reliability) {
    const std::size_t row_part = y * kGrid / height_ * kGrid;
    const float* sigmoids = tables().sigmoids + 128;
    for (std::size_t first = 0; first < width_; first += 8) {
      std::uint64_t flagged;
      std::memcpy(&flagged, flags + first, sizeof(flagged));
      for (; flagged != 0; flagged &= flagged - 1) {
        const std::size_t x = first + static_cast<std::size_t>(__builtin_ctzll(flagged)) / 8;
        keys_.push_back(key_of(float_of(heat[x]) * sigmoids[reliability[x / kCell]], y * width_ + x));
        parts_.push_back(static_cast<std::uint8_t>(row_part + column_parts_[x]));
      }
    }
  }

  // The `most` best, in order. No part has more than its share before all other parts have theirs.
  std::vector<Key> best(std::size_t most) {
    const std::size_t share = (kFairShares * most + kGrid * kGrid - 1) / (kGrid * kGrid);
    std::ptrdiff_t begins[kGrid * kGrid + 1] = {};  // of parts, and the end of the last; at first each part's end
    for (const std::uint8_t part : parts_) ++begins[part];
    std::partial_sum(std::begin(begins), std::end(begins), std::begin(begins));
    std::vector<Key> by_part(keys_.size());
    for (std::size_t i = 0; i < keys_.size(); ++i) by_part[static_cast<std::size_t>(--begins[parts_[i]])] = keys_[i];

    std::vector<Key> fair, rest;
    for (std::size_t part = 0; part < kGrid * kGrid; ++part) {
      const auto first = by_part.begin() + begins[part], last = by_part.begin() + begins[part + 1];
      const auto middle = first + std::min(static_cast<std::ptrdiff_t>(share), last - first);
      if (middle != last) std::nth_element(first, middle, last, std::greater<>());
      fair.insert(fair.end(), first, middle);
      rest.insert(rest.end(), middle, last);
    }
    keep_best(fair, most);
    keep_best(rest, most - fair.size());
    fair.insert(fair.end(), rest.begin(), rest.end());
    return fair;
  }

 private:
  static void keep_best(std::vector<Key>& keys, std::size_t most) {
    if (most < keys.size()) {
      std::nth_element(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(most), keys.end(), std::greater<>());
      keys.resize(most);
    }
    std::sort(keys.begin(), keys.end(), std::greater<>());
  }

  std::size_t width_, height_;
  std::vector<std::uint8_t> column_parts_;
  std::vector<Key> keys_;
  std::vector<std::uint8_t> parts_;
};

Peaks find_peaks(const DecodingKernel& kernel, const FeatureMaps& maps, std::size_t width, std::size_t height) {
  const std::size_t columns = (width + kCell - 1) / kCell, bands = (height + kCell - 1) / kCell;
  const std::size_t blocks = (width + kPixelBlock - 1) / kPixelBlock, whole = blocks * kPixelBlock;
  const std::int32_t least = bits_of(kLeastProbable);
  // Rows whose neighbours below are in the next band wait for it.
  Window<kNear + kCell> heat(whole);
  Window<2 * kNear + kCell> highest(whole);
  std::vector<std::uint8_t> flags(whole);
  Peaks peaks(width, height);
  for (std::size_t band = 0; band <= bands; ++band) {
    heat.advance(kCell);
    highest.advance(kCell);
    if (band < bands) {
      kernel.likely(maps.keypoints + band * maps.columns * kLogits, columns, tables().powers, heat.row(kNear),
                    heat.stride());
    }
    for (std::size_t i = 0; i < kCell && band * kCell + i < height; ++i) {
      std::int32_t* row = heat.row(kNear + i);
      std::fill(row + width, row + whole, 0);
      kernel.highest(row, blocks, highest.row(2 * kNear + i));
    }
    // What is below the image is no neighbour.
    for (std::size_t i = 0; i < kCell; ++i) {
      const std::size_t y = band * kCell + i - kNear;
      if (y >= height) continue;  // also above the image, where y has wrapped around
      const std::int32_t* const around[] = {highest.row(i), highest.row(i + 1), highest.row(i + 3), highest.row(i + 4)};
      kernel.peaks(heat.row(i), around, least, blocks, flags.data());
      peaks.add(y, flags.data(), heat.row(i), maps.reliability + y / kCell * maps.columns);
    }
  }
  return peaks;
}

// Where a pixel lies between the centres of cells, which are at pixel 3.5, 11.5 and so on; flat at the border.
struct Between {
  std::size_t cell;
  std::size_t next;
  int sixteenths;  // of the way to the next

  Between(std::size_t pixel, std::size_t cells) {
    const std::size_t way = std::min(std::max(2 * pixel + 1, kCell) - kCell, 16 * (cells - 1));
    cell = way / 16;
    next = std::min(cell + 1, cells - 1);
    sixteenths = static_cast<int>(way % 16);
  }
};

}  // namespace

std::size_t decode_features(const Kernel& kernel, const FeatureMaps& maps, std::size_t width, std::size_t height,
                            std::size_t most, const DecodedFeatures& found) {
  const std::vector<Key> best = find_peaks(kernel.decoding, maps, width, height).best(most);
  for (std::size_t i = 0; i < best.size(); ++i) {
    const std::size_t pixel = pixel_of(best[i]), x = pixel % width, y = pixel / width;
    found.points[2 * i] = static_cast<float>(x);
    found.points[2 * i + 1] = static_cast<float>(y);
    found.scores[i] = score_of(best[i]);
    const Between across(x, maps.columns), down(y, maps.rows);
    const std::int8_t* upper = maps.descriptors + down.cell * maps.columns * maps.bits;
    const std::int8_t* lower = maps.descriptors + down.next * maps.columns * maps.bits;
    const std::int8_t* const corners[] = {upper + across.cell * maps.bits, upper + across.next * maps.bits,
                                          lower + across.cell * maps.bits, lower + across.next * maps.bits};
    const int right = across.sixteenths, below = down.sixteenths;
    const int weights[] = {(16 - right) * (16 - below), right * (16 - below), (16 - right) * below, right * below};
    kernel.decoding.interpolate(corners, weights, maps.bits, found.descriptors + i * maps.bits / 8);
  }
  return best.size();
}

}  // namespace binvpr
