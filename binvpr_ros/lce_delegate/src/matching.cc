// SPDX-License-Identifier: Apache-2.0
// Rows of bits meet each other as the pixels and filters of a convolution do: four of these and 64 of those at a time.
#include "matching.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "tensor.h"

namespace binvpr {
namespace {

constexpr std::size_t kTile = kTileChannels;
constexpr std::size_t kGroup = kTilePixels;
constexpr std::size_t kBlockRows = std::size_t{1} << kPositionBits;             // that a key can tell apart
constexpr std::size_t kBlockColumns = (std::size_t{1} << kPositionBits) * kTile;
static_assert(kBlockRows % kGroup == 0);
static_assert(kMostMatchWords * 64 < kFarthest, "a key has room for every distance, and for none");

// Those of a block, packed.
class Columns {
 public:
  Columns(const Kernel& kernel, const std::uint8_t* rows, std::size_t count, std::size_t words)
      : count_(count), run_{0, static_cast<int>(2 * words)} {
    const std::vector<Run> runs = {run_};
    std::vector<std::int32_t> aligned(count * 2 * words);
    std::memcpy(aligned.data(), rows, count * 8 * words);
    std::vector<std::uint8_t> packed;
    for (std::size_t first = 0; first < count; first += kTile) {
      const std::int32_t* filters[kTileChannels] = {};
      for (std::size_t i = first; i < std::min(first + kTile, count); ++i) filters[i - first] = &aligned[i * 2 * words];
      kernel.pack(filters, runs, packed);
    }
    packed_ = AlignedBuffer(packed.size());
    std::memcpy(packed_.data(), packed.data(), packed.size());
    tile_bytes_ = packed.size() / tiles();
  }

  std::size_t tiles() const { return (count_ + kTile - 1) / kTile; }
  PackedColumns packed() const { return {packed_.data(), tile_bytes_, static_cast<int>(count_), run_}; }

 private:
  std::size_t count_;
  Run run_;
  std::size_t tile_bytes_;
  AlignedBuffer packed_;
};

// One to four of these, staged. Where there are fewer, the last stands in for the others: it is as near as itself, and
// of several as near the first counts.
class Rows {
 public:
  Rows(const Kernel& kernel, const std::uint8_t* rows, std::size_t count, std::size_t words) {
    std::int32_t aligned[2 * kMostMatchWords];
    for (std::size_t i = 0; i < kGroup; ++i) {
      std::uint8_t* staged = staged_ + i * sizeof(staged_) / kGroup;
      std::memcpy(aligned, rows + std::min(i, count - 1) * 8 * words, 8 * words);
      kernel.stage(aligned, static_cast<int>(2 * words), staged);
      pointers_[i] = staged;
    }
  }

  const std::uint8_t* const* pointers() const { return pointers_; }

 private:
  alignas(64) std::uint8_t staged_[kGroup * 2 * kMostMatchWords * kMostStagedBytes];
  const std::uint8_t* pointers_[kGroup];
};

std::uint16_t distance_of(std::uint16_t distance) { return distance == kFarthest ? kNoDistance : distance; }

}  // namespace

void nearest_two(const Kernel& kernel, const std::uint8_t* these, std::size_t these_count, const std::uint8_t* those,
                 std::size_t those_count, std::size_t words, const Matches& matches) {
  std::fill_n(matches.nearest, these_count, kNoRow);
  std::fill_n(matches.distance, these_count, kNoDistance);
  std::fill_n(matches.second, these_count, kNoDistance);
  std::fill_n(matches.back, those_count, kNoRow);
  const std::size_t bytes = 8 * words;
  for (std::size_t column = 0; column < those_count && these_count > 0; column += kBlockColumns) {
    const std::size_t column_count = std::min(kBlockColumns, those_count - column);
    const Columns columns(kernel, those + column * bytes, column_count, words);
    std::vector<std::uint16_t> back_distance(column_count, kNoDistance);
    std::vector<std::uint16_t> keys(columns.tiles() * kTile);
    for (std::size_t block = 0; block < these_count; block += kBlockRows) {
      std::fill(keys.begin(), keys.end(), UINT16_MAX);
      const std::size_t end = std::min(block + kBlockRows, these_count);
      for (std::size_t row = block; row < end; row += kGroup) {
        const Rows rows(kernel, these + row * bytes, std::min(kGroup, end - row), words);
        Nearest found[kGroup];
        kernel.nearest(rows.pointers(), columns.packed(), static_cast<int>(row - block), keys.data(), found);
        for (std::size_t i = row; i < std::min(row + kGroup, end); ++i) {
          const Nearest& of_block = found[i - row];
          const std::uint16_t farther = std::max(matches.distance[i], of_block.distance);
          matches.second[i] = std::min({matches.second[i], distance_of(of_block.second), farther});
          // The first of several as near counts, so a later block's has to be nearer.
          if (of_block.distance < matches.distance[i]) {
            matches.distance[i] = of_block.distance;
            matches.nearest[i] = static_cast<std::int32_t>(column) + of_block.column;
          }
        }
      }
      for (std::size_t i = 0; i < column_count; ++i) {
        const auto distance = static_cast<std::uint16_t>(keys[i] >> kPositionBits);
        const std::size_t row = block + keys[i] % kBlockRows;
        if (distance >= back_distance[i]) continue;
        back_distance[i] = distance;
        matches.back[column + i] = static_cast<std::int32_t>(row);
      }
    }
  }
}

}  // namespace binvpr
