// SPDX-License-Identifier: Apache-2.0
// What differs from one processor to the next: counting the bits in which pixels and filters differ, and turning the
// counts into output. Everything else is in convolution.cc. Descriptors and local features are compared by counting bits
// too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

// Whether the compiler knows AVX-VNNI.
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define BINVPR_HAS_AVX_VNNI 1
#else
#define BINVPR_HAS_AVX_VNNI 0
#endif

namespace binvpr {

constexpr int kWordBits = 32;       // LCE packs 32 channels into a word, least significant bit first; 1 stands for -1
constexpr int kTilePixels = 4;      // output pixels of a tile
constexpr int kTileChannels = 64;   // output channels of a tile
constexpr int kMaxCount = 65534;    // a tile counts at most so many bits, so that "never reached" is a uint16 too

// The negative number next to zero. TFLite takes subnormal numbers for zero, in some runtimes by the processor's mode.
constexpr float kNegative = -std::numeric_limits<float>::min();

constexpr int words_for(int channels) { return channels / kWordBits + (channels % kWordBits != 0); }

// Input that lies in one piece: the channels of one filter tap, or of a whole filter row.
struct Run {
  std::ptrdiff_t offset;  // bytes from an output pixel's first staged input byte
  int words;
};

// Turns the doubled counts of a tile into real values: float(clamp(2 count)) * multiplier + bias.
struct RealTransform {
  bool clamps;  // whether any count is out of bounds
  std::int32_t clamp_min;
  std::int32_t clamp_max;
  const float* multiplier;  // [channels]
  const float* bias;        // [channels]
};

// Where the real values of a tile go. What belongs to a pixel is a stride behind what belongs to the one before.
struct FloatTile {
  int pixels;
  int channels;
  const float* shortcut;  // is added, where it is not null; may be in the same place as `values`
  std::size_t shortcut_stride;
  float* values;
  std::size_t stride;
  std::int32_t* signs;  // packed; null where nobody reads them
  std::size_t signs_stride;
};

// Where the int8 values of a tile go.
struct Int8Tile {
  int pixels;
  int channels;
  std::size_t stride;
  std::int8_t* values;
};

constexpr int kLevels = 16;  // of an input of four bits

struct Requantization;

// For the int8 layers around the binary ones.
struct QuantizedKernel {
  // Input of four bits and filters of signs. What is counted is the sum of the input where the sign is negative.
  // `stage` writes so many bytes for 32 channels; zeros stand for an input of zero.
  int staged_bytes_per_word;

  // Stages values of zero ... zero + 15 and returns their sum above zero; `count` is a multiple of 32.
  std::int32_t (*stage)(const std::int8_t* values, int count, std::int8_t zero, std::uint8_t* staged);

  // As those of Kernel.
  void (*pack)(const std::int32_t* const* filters, const std::vector<Run>& runs, std::vector<std::uint8_t>& packed);
  void (*count)(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                int channels, std::uint16_t* counts);

  // sums[i] = bias[i] + magnitudes[i] * (total - doubled[i])
  void (*combine)(const std::int32_t* doubled, int channels, std::int32_t total, const std::int32_t* magnitudes,
                  const std::int32_t* bias, std::int32_t* sums);

  // Input and filters of eight bits. A word of a run, and of a filter, is one value here, of which `stage_values` writes
  // so many bytes; what it writes is the value plus `value_offset`. Values behind a run may be read.
  int bytes_per_value;
  std::int32_t value_offset;
  void (*stage_values)(const std::int8_t* values, int count, std::uint8_t* staged);
  void (*pack_values)(const std::int32_t* const* filters, const std::vector<Run>& runs, std::vector<std::uint8_t>& packed);

  // Of sums[pixel * kTileChannels + channel] writes clamp(zero point + sum * multipliers[channel] *
  // 2^(-31 - shifts[channel])), rounded as TFLite's convolutions do. Sums are within 2^30.
  void (*requantize)(const std::int32_t* sums, const Requantization&, const Int8Tile&);

  // Counts, and requantizes what `combine` makes of the doubled counts, with a total for each of kTilePixels. Arrays of
  // channels go on with any values up to a whole tile.
  void (*count_to_int8)(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                        const std::int32_t* totals, const std::int32_t* magnitudes, const std::int32_t* bias,
                        const Requantization&, const Int8Tile&);

  // Requantizes bias[channel] + the product of the pixel's staged values and the filter. `bias` has kTileChannels.
  void (*multiply)(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                   const std::int32_t* bias, const Requantization&, const Int8Tile&);
};

// To the int8 output of a convolution. Arrays go on with any values up to a whole tile.
struct Requantization {
  const std::int32_t* multipliers;  // [channels]
  const std::int32_t* shifts;       // [channels], 0 to 31
  const std::int32_t* halves;       // [channels], of what is shifted out
  std::int32_t zero_point;
  std::int32_t min;
  std::int32_t max;
};

// Rows are matched by 16-bit keys: a distance and, below it, a position. The least of some keys then says both how near
// the nearest is and where it is, the first of several as near.
constexpr int kPositionBits = 6;
constexpr std::uint16_t kFarthest = UINT16_MAX >> kPositionBits;  // than any distance: there is no row

// Up to 2^kPositionBits tiles of rows to compare with, packed as filters of one run.
struct PackedColumns {
  const std::uint8_t* packed;
  std::size_t tile_bytes;
  int count;
  Run run;
};

// Of the columns; kFarthest where there is none.
struct Nearest {
  std::int32_t column;
  std::uint16_t distance;
  std::uint16_t second;  // the second smallest distance
};

constexpr int kMostStagedBytes = 8;  // that a kernel stages for a word

constexpr std::size_t kCell = 8;                      // pixels a side that local features have a row and column for
constexpr std::size_t kPositions = kCell * kCell;
constexpr std::size_t kLogits = kPositions + 1;       // of the positions in a cell, row by row, and of none
constexpr std::size_t kNear = 2;                      // pixels within which a keypoint is the most probable position
constexpr std::size_t kPixelBlock = 16;               // rows of pixels are as many of these
constexpr std::size_t kBitBlock = 64;

// Of e, times 2^20, by how many levels a logit is below the highest of its cell.
struct Powers {
  std::int32_t of[256];
  int hopeless;  // so far below another no position is as probable as a keypoint has to be
};

// For local features (decoding.cc). Probabilities are bits of floats: those of positive ones have the same order.
struct DecodingKernel {
  // How probable the positions [kCell][stride] in cells [columns] are, by their logits [columns][kLogits]. Nothing is
  // written for cells without hope.
  void (*likely)(const std::int8_t* logits, std::size_t columns, const Powers&, std::int32_t* heat, std::size_t stride);

  // The highest in a row of pixels among those within kNear, which may lie outside. Rows are `blocks` of kPixelBlock.
  void (*highest)(const std::int32_t* heat, std::size_t blocks, std::int32_t* highest);

  // Flags by 1 the pixels that are `least` or more, higher than all near ones before them, row by row, and no lower than
  // those after. `around` has what is `highest` in the two rows above and in the two below.
  void (*peaks)(const std::int32_t* heat, const std::int32_t* const* around, std::int32_t least, std::size_t blocks,
                std::uint8_t* flags);

  // The signs of four descriptors' weighted sum, 1 for 0 and more, the first in the highest place. Weights sum up to 256;
  // `bits` is a multiple of 8.
  void (*interpolate)(const std::int8_t* const* corners, const int* weights, std::size_t bits, std::uint8_t* packed);
};

struct Kernel {
  const char* name;
  const QuantizedKernel& quantized;
  bool (*runs_here)();

  // Bytes that `stage` writes for one packed word.
  int staged_bytes_per_word;
  void (*stage)(const std::int32_t* words, int count, std::uint8_t* staged);

  // Lays out the filters of one tile. `filters` [kTileChannels] points to the words of all runs in a row, null where the
  // tile has fewer channels. Appends to `packed`; equal runs give equal sizes.
  void (*pack)(const std::int32_t* const* filters, const std::vector<Run>& runs, std::vector<std::uint8_t>& packed);

  // Counts differing bits: counts[pixel * kTileChannels + channel], for at least the first `channels` channels.
  void (*count)(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                int channels, std::uint16_t* counts);

  // Bit i is set where counts[i] >= thresholds[i]; kTileChannels of them.
  std::uint64_t (*reach)(const std::uint16_t* counts, const std::uint16_t* thresholds);

  // sums[i] += 2 * counts[i], for kTileChannels of them.
  void (*add_doubled)(const std::uint16_t* counts, std::int32_t* sums);

  // Adds `shortcut`, where there is one, and packs the signs too, where there are words for them. Values and shortcut may
  // be in the same place.
  void (*to_float)(const std::int32_t* doubled, int channels, const RealTransform&, const float* shortcut, float* values,
                   std::int32_t* packed);
  void (*to_int8)(const std::int32_t* doubled, int channels, const RealTransform&, std::int8_t* output);

  // Turns counts into real values at once, while they are at hand: as `count`, `add_doubled` and `to_float`.
  void (*count_to_float)(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                         const RealTransform&, const FloatTile&);

  // clamp(zero point + value * inverse_scale), rounded to the nearest, and halves to even, as XNNPACK rounds.
  void (*quantize)(const float* values, std::size_t count, float inverse_scale, int zero_point, std::int8_t* output);

  // Packs signs: bit i is set where values[i] <= kNegative (or < zero_point). words_for(count) words, filled up with zeros.
  void (*pack_float)(const float* values, int count, std::int32_t* words);
  void (*pack_int8)(const std::int8_t* values, int count, std::int8_t zero_point, std::int32_t* words);

  // Hamming distances [count] of descriptors [count][words] to the nearest of some queries [views][words], one at least;
  // words have 64 bits and any alignment.
  void (*hamming)(const std::uint8_t* descriptors, std::size_t count, std::size_t words, const std::uint8_t* queries,
                  std::size_t views, std::uint32_t* distances);

  // The nearest of `columns` to each of kTilePixels staged rows. keys[column] becomes the key of the nearest of the rows,
  // at the positions `first` and following, where none is less; there are keys for whole tiles.
  void (*nearest)(const std::uint8_t* const* rows, const PackedColumns& columns, int first, std::uint16_t* keys,
                  Nearest* nearest);

  const DecodingKernel& decoding;

  // Multiply-accumulates that the counting instructions alone do in `rounds` rounds, with no memory touched.
  double (*peak)(long rounds);
};

extern const Kernel kPortableKernel;
#if defined(__x86_64__)
extern const DecodingKernel kAvx2Decoding;
extern const Kernel kAvx2Kernel;
#if BINVPR_HAS_AVX_VNNI
extern const Kernel kAvxVnniKernel;
#endif
extern const Kernel kAvx512Kernel;
#elif defined(__aarch64__)
extern const Kernel kNeonKernel;
extern const Kernel kNeonDotKernel;
#endif

// The kernels that this processor can run, best first.
std::vector<const Kernel*> available_kernels();

// Throws Refusal where there is no such kernel, or none for this processor; "auto" takes the best.
const Kernel& find_kernel(const std::string& name);

}  // namespace binvpr
