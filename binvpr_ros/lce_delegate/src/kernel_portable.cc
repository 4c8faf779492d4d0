// SPDX-License-Identifier: Apache-2.0
// For any processor: a population count of 64 bits at a time where the compiler has one.
#include <cstring>

#include "decoding_loops.h"
#include "kernel_loops.h"

namespace binvpr {
namespace {

// [run][channel][word]
void pack(const std::int32_t* const* filters, const std::vector<Run>& runs, std::vector<std::uint8_t>& packed) {
  int first = 0;
  for (const Run& run : runs) {
    const std::size_t bytes = static_cast<std::size_t>(run.words) * sizeof(std::int32_t);
    for (int channel = 0; channel < kTileChannels; ++channel) {
      packed.resize(packed.size() + bytes);
      if (filters[channel] != nullptr) std::memcpy(&packed[packed.size() - bytes], filters[channel] + first, bytes);
    }
    first += run.words;
  }
}

int differing_bits(const std::uint8_t* a, const std::uint8_t* b, int words) {
  int bits = 0;
  for (; words >= 2; words -= 2, a += 8, b += 8) {
    std::uint64_t x, y;
    std::memcpy(&x, a, 8);
    std::memcpy(&y, b, 8);
    bits += __builtin_popcountll(x ^ y);
  }
  if (words == 1) {
    std::uint32_t x, y;
    std::memcpy(&x, a, 4);
    std::memcpy(&y, b, 4);
    bits += __builtin_popcount(x ^ y);
  }
  return bits;
}

void count(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed, int channels,
           std::uint16_t* counts) {
  std::memset(counts, 0, sizeof(*counts) * kTilePixels * kTileChannels);
  for (int r = 0; r < run_count; ++r) {
    const std::size_t bytes = static_cast<std::size_t>(runs[r].words) * sizeof(std::int32_t);
    for (int pixel = 0; pixel < kTilePixels; ++pixel) {
      for (int channel = 0; channel < channels; ++channel) {
        counts[pixel * kTileChannels + channel] = static_cast<std::uint16_t>(
            counts[pixel * kTileChannels + channel] +
            differing_bits(pixels[pixel] + runs[r].offset, packed + static_cast<std::size_t>(channel) * bytes,
                           runs[r].words));
      }
    }
    packed += kTileChannels * bytes;
  }
}

std::uint64_t reach(const std::uint16_t* counts, const std::uint16_t* thresholds) {
  std::uint64_t bits = 0;
  for (int i = 0; i < kTileChannels; ++i) bits |= static_cast<std::uint64_t>(counts[i] >= thresholds[i]) << i;
  return bits;
}

// A byte a channel.
std::int32_t stage_levels(const std::int8_t* values, int count, std::int8_t zero, std::uint8_t* staged) {
  std::int32_t sum = 0;
  for (int i = 0; i < count; ++i) sum += staged[i] = static_cast<std::uint8_t>(values[i] - zero);
  return sum;
}

void count_levels(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                  int channels, std::uint16_t* counts) {
  std::memset(counts, 0, sizeof(*counts) * kTilePixels * kTileChannels);
  for (int r = 0; r < run_count; ++r) {
    for (int byte = 0; byte < 4 * runs[r].words; ++byte, packed += kTileChannels) {
      for (int pixel = 0; pixel < kTilePixels; ++pixel) {
        const std::uint8_t* levels = pixels[pixel] + runs[r].offset + 8 * byte;
        for (int channel = 0; channel < channels; ++channel) {
          int sum = 0;
          for (int bit = 0; bit < 8; ++bit) sum += (packed[channel] >> bit & 1) * levels[bit];
          std::uint16_t& count = counts[pixel * kTileChannels + channel];
          count = static_cast<std::uint16_t>(count + sum);
        }
      }
    }
  }
}

void sum_products(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                  int channels, const std::int32_t* bias, std::int32_t* sums) {
  const auto at = [](const std::uint8_t* byte) { return static_cast<std::int8_t>(*byte); };
  for (int pixel = 0; pixel < kTilePixels; ++pixel) std::copy_n(bias, kTileChannels, sums + pixel * kTileChannels);
  for (int r = 0; r < run_count; ++r) {
    for (int quad = 0; quad < runs[r].words; quad += 4, packed += 4 * kTileChannels) {
      const int length = std::min(4, runs[r].words - quad);
      for (int pixel = 0; pixel < kTilePixels; ++pixel) {
        const std::uint8_t* values = pixels[pixel] + runs[r].offset + quad;
        for (int channel = 0; channel < channels; ++channel) {
          std::int32_t& sum = sums[pixel * kTileChannels + channel];
          for (int i = 0; i < length; ++i) sum += at(values + i) * at(packed + 4 * channel + i);
        }
      }
    }
  }
}

void requantize_pixel(const std::int32_t* sums, int channels, const Requantization& to, std::int8_t* output) {
  loop_requantize_from(0, sums, channels, to, output);
}

void requantize(const std::int32_t* sums, const Requantization& to, const Int8Tile& tile) {
  loop_requantize(sums, to, tile, requantize_pixel);
}

void count_to_int8(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                   const std::int32_t* totals, const std::int32_t* magnitudes, const std::int32_t* bias,
                   const Requantization& to, const Int8Tile& tile) {
  loop_count_to_int8(pixels, runs, run_count, packed, totals, magnitudes, bias, to, tile, count_levels, loop_combine,
                     requantize);
}

void multiply(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
              const std::int32_t* bias, const Requantization& to, const Int8Tile& tile) {
  loop_multiply(pixels, runs, run_count, packed, bias, to, tile, sum_products, requantize);
}

void to_float(const std::int32_t* doubled, int channels, const RealTransform& transform, const float* shortcut,
              float* values, std::int32_t* packed) {
  loop_to_float(doubled, channels, transform, shortcut, values, packed, loop_pack_float);
}

void count_to_float(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                    const RealTransform& transform, const FloatTile& tile) {
  loop_count_to_float(pixels, runs, run_count, packed, transform, tile, count, to_float);
}

void nearest(const std::uint8_t* const* rows, const PackedColumns& columns, int first, std::uint16_t* keys,
             Nearest* found) {
  loop_nearest(rows, columns, first, keys, found, count);
}

double peak(long rounds) {
  std::uint64_t x = 0x0123456789abcdef;
  std::uint64_t sum[4] = {};
  for (long i = 0; i < rounds; ++i) {
    for (std::uint64_t& part : sum) {
      asm volatile("" : "+r"(x));
      part += static_cast<unsigned>(__builtin_popcountll(x ^ static_cast<std::uint64_t>(i)));
    }
  }
  asm volatile("" ::"r"(sum[0] + sum[1] + sum[2] + sum[3]));
  return 4.0 * 64 * static_cast<double>(rounds);
}

}  // namespace

const QuantizedKernel kQuantized = {
    kWordBits, stage_levels, loop_pack_bytes, count_levels, loop_combine,
    1, 0, loop_stage_bytes, loop_pack_quads, requantize, count_to_int8, multiply,
};

const Kernel kPortableKernel = {
    "portable", kQuantized, [] { return true; }, sizeof(std::int32_t), loop_stage, pack, count, reach, loop_add_doubled, to_float, loop_to_int8, count_to_float, loop_quantize,
    loop_pack_float, loop_pack_int8, loop_hamming, nearest, kDecodingLoops, peak,
};

}  // namespace binvpr
