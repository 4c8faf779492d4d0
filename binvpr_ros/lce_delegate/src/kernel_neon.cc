// SPDX-License-Identifier: Apache-2.0
// 64-bit ARM.
//
// A vector holds 128 input channels of one filter. Exclusive or, count the bits of each byte, then add neighbours until
// the counts of eight filters share a vector: seven pairwise additions and one that widens. So 128 multiply-accumulates
// take three instructions, and at the end nothing is left to add up. Sums in bytes would take as many in the loop, and
// then more to add up each of sixteen vectors; so would dot products with ones (docs/kernels.md).
#if defined(__aarch64__)

#include <arm_neon.h>
#include <sys/auxv.h>

#include <cstring>

#include "decoding_loops.h"
#include "kernel_loops.h"

namespace binvpr {
namespace {

constexpr int kVectorWords = 4;
constexpr int kBlock = 8;  // filters that are counted together, against four pixels
static_assert(kTilePixels == 4 && kTileChannels % kBlock == 0, "the registers are laid out for 4 x 8 sums");

constexpr int vectors_for(int words) { return (words + kVectorWords - 1) / kVectorWords; }

// [block of 8 channels][run][vector][channel], runs filled up with zeros to whole vectors.
void pack(const std::int32_t* const* filters, const std::vector<Run>& runs, std::vector<std::uint8_t>& packed) {
  for (int block = 0; block < kTileChannels; block += kBlock) {
    int first = 0;
    for (const Run& run : runs) {
      for (int vector = 0; vector < vectors_for(run.words); ++vector) {
        const int words = std::min(kVectorWords, run.words - vector * kVectorWords);
        for (int channel = block; channel < block + kBlock; ++channel) {
          std::int32_t bits[kVectorWords] = {};
          if (filters[channel] != nullptr) {
            std::memcpy(bits, filters[channel] + first + vector * kVectorWords,
                        static_cast<std::size_t>(words) * sizeof(*bits));
          }
          const auto* bytes = reinterpret_cast<const std::uint8_t*>(bits);
          packed.insert(packed.end(), bytes, bytes + sizeof(bits));
        }
      }
      first += run.words;
    }
  }
}

// One to three words, filled up with zeros. A copy of unknown length would be a call, and save every vector.
inline uint8x16_t load_words(const std::uint8_t* staged, int words) {
  const auto word_at = [staged](int i) {
    std::uint32_t word;
    std::memcpy(&word, staged + 4 * i, sizeof(word));
    return word;
  };
  uint32x4_t bits = vsetq_lane_u32(word_at(0), vdupq_n_u32(0), 0);
  if (words > 1) bits = vsetq_lane_u32(word_at(1), bits, 1);
  if (words > 2) bits = vsetq_lane_u32(word_at(2), bits, 2);
  return vreinterpretq_u8_u32(bits);
}

struct Filters {
  uint8x16_t a, b, c, d, e, f, g, h;

  explicit Filters(const std::uint8_t* packed)
      : a(vld1q_u8(packed)),
        b(vld1q_u8(packed + 16)),
        c(vld1q_u8(packed + 32)),
        d(vld1q_u8(packed + 48)),
        e(vld1q_u8(packed + 64)),
        f(vld1q_u8(packed + 80)),
        g(vld1q_u8(packed + 96)),
        h(vld1q_u8(packed + 112)) {}
};

inline uint8x16_t differing(uint8x16_t filter, uint8x16_t pixel) { return vcntq_u8(veorq_u8(filter, pixel)); }

// The bits in which a pixel differs from two filters: eight bytes a filter.
inline uint8x16_t differing(uint8x16_t first, uint8x16_t second, uint8x16_t pixel) {
  return vpaddq_u8(differing(first, pixel), differing(second, pixel));
}

// The same for eight filters.
struct Pairs {
  uint8x16_t ab, cd, ef, gh;

  Pairs(const Filters& filters, uint8x16_t pixel)
      : ab(differing(filters.a, filters.b, pixel)),
        cd(differing(filters.c, filters.d, pixel)),
        ef(differing(filters.e, filters.f, pixel)),
        gh(differing(filters.g, filters.h, pixel)) {}

  // A byte is 64 at most by the end.
  uint16x8_t added_to(uint16x8_t sums) const {
    return vpadalq_u8(sums, vpaddq_u8(vpaddq_u8(ab, cd), vpaddq_u8(ef, gh)));
  }
};

// Lets no work on `pixel` begin before `pairs` are there: a compiler that takes on four pixels at once runs out of
// registers and keeps sums in memory. Two at once are enough to hide latencies.
inline void hold_back(uint8x16_t& pixel, const Pairs& pairs) {
  asm("" : "+w"(pixel) : "w"(pairs.ab), "w"(pairs.cd), "w"(pairs.ef), "w"(pairs.gh));
}

// Sums of four pixels against eight filters.
struct Sums {
  uint16x8_t s0, s1, s2, s3;

  void add(const std::uint8_t* packed, uint8x16_t w0, uint8x16_t w1, uint8x16_t w2, uint8x16_t w3) {
    const Filters filters(packed);
    const Pairs pairs0(filters, w0), pairs1(filters, w1);
    s0 = pairs0.added_to(s0);
    hold_back(w2, pairs0);
    const Pairs pairs2(filters, w2);
    s1 = pairs1.added_to(s1);
    hold_back(w3, pairs1);
    const Pairs pairs3(filters, w3);
    s2 = pairs2.added_to(s2);
    s3 = pairs3.added_to(s3);
  }
};

void count(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed, int channels,
           std::uint16_t* counts) {
  for (int block = 0; block < channels; block += kBlock) {
    const uint16x8_t zero = vdupq_n_u16(0);
    Sums sums = {zero, zero, zero, zero};
    for (int r = 0; r < run_count; ++r) {
      const std::uint8_t* p0 = pixels[0] + runs[r].offset;
      const std::uint8_t* p1 = pixels[1] + runs[r].offset;
      const std::uint8_t* p2 = pixels[2] + runs[r].offset;
      const std::uint8_t* p3 = pixels[3] + runs[r].offset;
      int words = runs[r].words;
      for (; words >= kVectorWords; words -= kVectorWords) {
        sums.add(packed, vld1q_u8(p0), vld1q_u8(p1), vld1q_u8(p2), vld1q_u8(p3));
        packed += sizeof(Filters);
        p0 += 16, p1 += 16, p2 += 16, p3 += 16;
      }
      if (words > 0) {
        sums.add(packed, load_words(p0, words), load_words(p1, words), load_words(p2, words),
                 load_words(p3, words));
        packed += sizeof(Filters);
      }
    }
    vst1q_u16(counts + block, sums.s0);
    vst1q_u16(counts + kTileChannels + block, sums.s1);
    vst1q_u16(counts + 2 * kTileChannels + block, sums.s2);
    vst1q_u16(counts + 3 * kTileChannels + block, sums.s3);
  }
}

// Input of four bits: sixteen sums for each four channels, one for each choice of them.
constexpr int kLevelTable = kLevels;
constexpr int kLookUpLanes = 16;
static_assert(4 * 4 * (kLevels - 1) <= 255, "four look-ups fit a byte");

std::int32_t stage_levels(const std::int8_t* values, int count, std::int8_t zero, std::uint8_t* staged) {
  // Which of sixteen levels, and of sixteen bytes with the sums of pairs, stand in the table of four channels for its
  // places' lower two bits, and for the upper two.
  const uint8x16_t low = {255, 0, 1, 16, 255, 0, 1, 16, 255, 0, 1, 16, 255, 0, 1, 16};
  const uint8x16_t high = {255, 255, 255, 255, 2, 2, 2, 2, 3, 3, 3, 3, 18, 18, 18, 18};
  uint32x4_t total = vdupq_n_u32(0);
  for (int i = 0; i < count; i += 16) {
    const uint8x16_t levels = vreinterpretq_u8_s8(vsubq_s8(vld1q_s8(values + i), vdupq_n_s8(zero)));
    total = vpadalq_u16(total, vpaddlq_u8(levels));
    const uint8x16_t next = vreinterpretq_u8_u16(vshrq_n_u16(vreinterpretq_u16_u8(levels), 8));
    const uint8x16x2_t all = {{levels, vaddq_u8(levels, next)}};  // sums of pairs in even bytes
    for (int table = 0; table < 4; ++table, staged += kLevelTable) {
      const uint8x16_t first = vdupq_n_u8(static_cast<std::uint8_t>(4 * table));
      // 255 and more is no place, and gives 0.
      vst1q_u8(staged, vaddq_u8(vqtbl2q_u8(all, vqaddq_u8(low, first)), vqtbl2q_u8(all, vqaddq_u8(high, first))));
    }
  }
  return static_cast<std::int32_t>(vaddvq_u32(total));
}

inline void add_level_look_ups(uint16x8_t& low, uint16x8_t& high, const std::uint8_t* tables, uint8x16_t a_low,
                               uint8x16_t a_high, uint8x16_t b_low, uint8x16_t b_high) {
  const uint8x16_t a = vaddq_u8(vqtbl1q_u8(vld1q_u8(tables), a_low), vqtbl1q_u8(vld1q_u8(tables + kLevelTable), a_high));
  const uint8x16_t b = vaddq_u8(vqtbl1q_u8(vld1q_u8(tables + 2 * kLevelTable), b_low),
                                vqtbl1q_u8(vld1q_u8(tables + 3 * kLevelTable), b_high));
  const uint8x16_t sum = vaddq_u8(a, b);
  low = vaddw_u8(low, vget_low_u8(sum));
  high = vaddw_high_u8(high, sum);
}

void count_levels(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                  int channels, std::uint16_t* counts) {
  const uint8x16_t low_nibble = vdupq_n_u8(0x0f);
  for (int first = 0; first < channels; first += kLookUpLanes) {
    const std::uint8_t* filters = packed + first;
    const uint16x8_t zero = vdupq_n_u16(0);
    uint16x8_t low0 = zero, low1 = zero, low2 = zero, low3 = zero, high0 = zero, high1 = zero, high2 = zero, high3 = zero;
    for (int r = 0; r < run_count; ++r) {
      const std::uint8_t* p0 = pixels[0] + runs[r].offset;
      const std::uint8_t* p1 = pixels[1] + runs[r].offset;
      const std::uint8_t* p2 = pixels[2] + runs[r].offset;
      const std::uint8_t* p3 = pixels[3] + runs[r].offset;
      for (int half_word = 0; half_word < 2 * runs[r].words; ++half_word) {
        const uint8x16_t a = vld1q_u8(filters), b = vld1q_u8(filters + kTileChannels);
        filters += 2 * kTileChannels;
        const uint8x16_t a_low = vandq_u8(a, low_nibble), b_low = vandq_u8(b, low_nibble);
        const uint8x16_t a_high = vshrq_n_u8(a, 4), b_high = vshrq_n_u8(b, 4);
        add_level_look_ups(low0, high0, p0, a_low, a_high, b_low, b_high);
        add_level_look_ups(low1, high1, p1, a_low, a_high, b_low, b_high);
        add_level_look_ups(low2, high2, p2, a_low, a_high, b_low, b_high);
        add_level_look_ups(low3, high3, p3, a_low, a_high, b_low, b_high);
        const int step = 4 * kLevelTable;
        p0 += step, p1 += step, p2 += step, p3 += step;
      }
    }
    const auto store = [&](int pixel, uint16x8_t low, uint16x8_t high) {
      vst1q_u16(counts + pixel * kTileChannels + first, low);
      vst1q_u16(counts + pixel * kTileChannels + first + 8, high);
    };
    store(0, low0, high0), store(1, low1, high1), store(2, low2, high2), store(3, low3, high3);
  }
}

// Two values to multiply by, lane by lane: loaded straight into a vector.
inline int16x4_t pair_at(const std::uint8_t* staged) {
  std::uint32_t pair;
  std::memcpy(&pair, staged, sizeof(pair));
  return vcreate_s16(pair);
}

void sum_products(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                  int channels, const std::int32_t* bias, std::int32_t* sums) {
  constexpr int kPairBytes = 4;
  for (int first = 0; first < channels; first += 8) {
    const std::uint8_t* weights = packed + kPairBytes * first;
    const int32x4_t a = vld1q_s32(bias + first), b = vld1q_s32(bias + first + 4);
    int32x4_t low[kTilePixels] = {a, a, a, a}, high[kTilePixels] = {b, b, b, b};
    for (int r = 0; r < run_count; ++r) {
      std::ptrdiff_t at = runs[r].offset;
      for (int left = runs[r].words; left > 0; left -= 2, at += kPairBytes, weights += kPairBytes * kTileChannels) {
        const int16x8x2_t weight = vld2q_s16(reinterpret_cast<const std::int16_t*>(weights));
        for (int pixel = 0; pixel < kTilePixels; ++pixel) {
          const int16x4_t values = pair_at(pixels[pixel] + at);
          low[pixel] = vmlal_lane_s16(low[pixel], vget_low_s16(weight.val[0]), values, 0);
          high[pixel] = vmlal_high_lane_s16(high[pixel], weight.val[0], values, 0);
          low[pixel] = vmlal_lane_s16(low[pixel], vget_low_s16(weight.val[1]), values, 1);
          high[pixel] = vmlal_high_lane_s16(high[pixel], weight.val[1], values, 1);
        }
      }
    }
    for (int pixel = 0; pixel < kTilePixels; ++pixel) {
      vst1q_s32(sums + pixel * kTileChannels + first, low[pixel]);
      vst1q_s32(sums + pixel * kTileChannels + first + 4, high[pixel]);
    }
  }
}

// Where there are dot products (most cores since the Cortex-A55 and A75): four values of a pixel with those of four
// channels in an instruction.
__attribute__((target("arch=armv8.2-a+dotprod"))) void sum_quad_products(
    const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed, int channels,
    const std::int32_t* bias, std::int32_t* sums) {
  constexpr int kLanes = 4, kVectors = 4;  // of channels
  for (int first = 0; first < channels; first += kLanes * kVectors) {
    const std::uint8_t* weights = packed + 4 * first;
    int32x4_t of[kTilePixels][kVectors];
    for (int v = 0; v < kVectors; ++v) {
      for (auto& pixel : of) pixel[v] = vld1q_s32(bias + first + kLanes * v);
    }
    for (int r = 0; r < run_count; ++r) {
      std::ptrdiff_t at = runs[r].offset;
      for (int left = runs[r].words; left > 0; left -= 4, at += 4, weights += 4 * kTileChannels) {
        int8x16_t filters[kVectors];
        for (int v = 0; v < kVectors; ++v) filters[v] = vreinterpretq_s8_u8(vld1q_u8(weights + 16 * v));
        for (int pixel = 0; pixel < kTilePixels; ++pixel) {
          std::uint32_t quad;
          std::memcpy(&quad, pixels[pixel] + at, sizeof(quad));
          const int8x8_t values = vcreate_s8(quad);  // to multiply by, all lanes by the one
          for (int v = 0; v < kVectors; ++v) of[pixel][v] = vdotq_lane_s32(of[pixel][v], filters[v], values, 0);
        }
      }
    }
    for (int pixel = 0; pixel < kTilePixels; ++pixel) {
      for (int v = 0; v < kVectors; ++v) {
        vst1q_s32(sums + pixel * kTileChannels + first + kLanes * v, of[pixel][v]);
      }
    }
  }
}

// As loop_requantize_from 0, four channels at a time.
void requantize_pixel(const std::int32_t* sums, int channels, const Requantization& to, std::int8_t* output) {
  int i = 0;
  for (; i + 4 <= channels; i += 4) {
    const int32x4_t high = vqrdmulhq_s32(vld1q_s32(sums + i), vld1q_s32(to.multipliers + i));
    const int32x4_t rounded = vrshlq_s32(high, vnegq_s32(vld1q_s32(to.shifts + i)));
    const int32x4_t value = vaddq_s32(rounded, vdupq_n_s32(to.zero_point));
    const int32x4_t bounded = vmaxq_s32(vdupq_n_s32(to.min), vminq_s32(vdupq_n_s32(to.max), value));
    for (int lane = 0; lane < 4; ++lane) output[i + lane] = static_cast<std::int8_t>(bounded[lane]);
  }
  loop_requantize_from(i, sums, channels, to, output);
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

void multiply_quads(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                    const std::int32_t* bias, const Requantization& to, const Int8Tile& tile) {
  loop_multiply(pixels, runs, run_count, packed, bias, to, tile, sum_quad_products, requantize);
}

// A bit of each lane: lane i keeps bit i.
inline std::uint32_t bits_of(uint8x16_t mask) {
  const uint8x16_t place = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t bits = vandq_u8(mask, place);
  return static_cast<std::uint32_t>(vaddv_u8(vget_low_u8(bits))) |
         static_cast<std::uint32_t>(vaddv_u8(vget_high_u8(bits))) << 8;
}

std::uint64_t reach(const std::uint16_t* counts, const std::uint16_t* thresholds) {
  std::uint64_t bits = 0;
  for (int i = 0; i < kTileChannels; i += 16) {
    const uint16x8_t low = vcgeq_u16(vld1q_u16(counts + i), vld1q_u16(thresholds + i));
    const uint16x8_t high = vcgeq_u16(vld1q_u16(counts + i + 8), vld1q_u16(thresholds + i + 8));
    bits |= static_cast<std::uint64_t>(bits_of(vcombine_u8(vmovn_u16(low), vmovn_u16(high)))) << i;
  }
  return bits;
}

inline uint16x4_t negative(const float* values) { return vmovn_u32(vcleq_f32(vld1q_f32(values), vdupq_n_f32(kNegative))); }

void pack_float(const float* values, int count, std::int32_t* words) {
  for (; count >= kWordBits; count -= kWordBits, values += kWordBits) {
    std::uint32_t word = 0;
    for (int i = 0; i < kWordBits; i += 16) {
      const uint8x8_t low = vmovn_u16(vcombine_u16(negative(values + i), negative(values + i + 4)));
      const uint8x8_t high = vmovn_u16(vcombine_u16(negative(values + i + 8), negative(values + i + 12)));
      word |= bits_of(vcombine_u8(low, high)) << i;
    }
    *words++ = static_cast<std::int32_t>(word);
  }
  loop_pack_float(values, count, words);
}

void to_float(const std::int32_t* doubled, int channels, const RealTransform& transform, const float* shortcut,
              float* values, std::int32_t* packed) {
  loop_to_float(doubled, channels, transform, shortcut, values, packed, pack_float);
}

void quantize(const float* values, std::size_t count, float inverse_scale, int zero_point, std::int8_t* output) {
  const float32x4_t most = vdupq_n_f32(1000), least = vdupq_n_f32(-1000);
  const int32x4_t zero = vdupq_n_s32(zero_point);
  const auto rounded = [&](const float* from) {
    const float32x4_t scaled = vmulq_n_f32(vld1q_f32(from), inverse_scale);
    // Of a number and what is none, `minnm` takes the number.
    return vqmovn_s32(vaddq_s32(vcvtnq_s32_f32(vmaxnmq_f32(vminnmq_f32(scaled, most), least)), zero));
  };
  for (; count >= 8; count -= 8, values += 8, output += 8) {
    vst1_s8(output, vqmovn_s16(vcombine_s16(rounded(values), rounded(values + 4))));
  }
  loop_quantize(values, count, inverse_scale, zero_point, output);
}

void pack_int8(const std::int8_t* values, int count, std::int8_t zero_point, std::int32_t* words) {
  const int8x16_t zero = vdupq_n_s8(zero_point);
  for (; count >= kWordBits; count -= kWordBits, values += kWordBits) {
    const std::uint32_t low = bits_of(vcltq_s8(vld1q_s8(values), zero));
    const std::uint32_t high = bits_of(vcltq_s8(vld1q_s8(values + 16), zero));
    *words++ = static_cast<std::int32_t>(high << 16 | low);
  }
  loop_pack_int8(values, count, zero_point, words);
}

void hamming(const std::uint8_t* descriptors, std::size_t count, std::size_t words, const std::uint8_t* queries,
             std::size_t views, std::uint32_t* distances) {
  static constexpr std::size_t kVectorsBeforeFlush = 255 / 8;  // a vector adds 8 at most to a byte
  const auto differing_bits = [](const std::uint8_t* a, const std::uint8_t* b, std::size_t left) {
    std::uint64_t sum = 0;
    for (std::size_t vectors = left / 2; vectors > 0;) {
      const std::size_t some = std::min(vectors, kVectorsBeforeFlush);
      uint8x16_t bytes = vdupq_n_u8(0);
      for (std::size_t i = 0; i < some; ++i, a += 16, b += 16) {
        bytes = vaddq_u8(bytes, vcntq_u8(veorq_u8(vld1q_u8(a), vld1q_u8(b))));
      }
      sum += vaddlvq_u8(bytes);
      vectors -= some;
    }
    return left % 2 == 0 ? sum : sum + vaddv_u8(vcnt_u8(veor_u8(vld1_u8(a), vld1_u8(b))));
  };
  loop_hamming(descriptors, count, words, queries, views, distances, differing_bits);
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
  std::uint8_t bytes[sizeof(Filters)] = {};
  asm volatile("" ::"r"(bytes) : "memory");  // that they are all the same is not to be known
  const Filters filters(bytes);
  uint8x16_t pixel = vdupq_n_u8(5), other = pixel;
  uint16x8_t s = vdupq_n_u16(0), t = s;
  for (long i = 0; i < rounds; ++i) {
    asm volatile("" : "+w"(pixel), "+w"(other));
    s = Pairs(filters, pixel).added_to(s);
    t = Pairs(filters, other).added_to(t);
  }
  asm volatile("" ::"w"(s), "w"(t));
  return 2.0 * kBlock * 128 * static_cast<double>(rounds);
}

bool has_dot_products() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }

}  // namespace

const QuantizedKernel kQuantized = {
    kWordBits / 4 * kLevelTable, stage_levels, loop_pack_bytes, count_levels, loop_combine,
    2, 0, loop_stage_pairs, loop_pack_pairs, requantize, count_to_int8, multiply,
};

const QuantizedKernel kDotQuantized = {
    kWordBits / 4 * kLevelTable, stage_levels, loop_pack_bytes, count_levels, loop_combine,
    1, 0, loop_stage_bytes, loop_pack_quads, requantize, count_to_int8, multiply_quads,
};

const Kernel kNeonDotKernel = {
    "neon-dot", kDotQuantized, has_dot_products, sizeof(std::int32_t), loop_stage, pack, count, reach, loop_add_doubled, to_float, loop_to_int8,
    count_to_float, quantize, pack_float, pack_int8, hamming, nearest, kDecodingLoops, peak,
};

const Kernel kNeonKernel = {
    "neon", kQuantized, [] { return true; }, sizeof(std::int32_t), loop_stage, pack, count, reach, loop_add_doubled, to_float, loop_to_int8,
    count_to_float, quantize, pack_float, pack_int8, hamming, nearest, kDecodingLoops, peak,
};

}  // namespace binvpr

#endif
