// SPDX-License-Identifier: Apache-2.0
// 64-bit ARM, with and without the dot-product instructions (Cortex-A55, A75, A76 and later have them).
//
// A vector holds 128 input channels of one filter. Exclusive or, count the bits of each byte, add bytes to bytes: 128
// multiply-accumulates in three instructions, and only after 31 vectors must the bytes be widened. A dot product with
// ones adds four bytes into 32 bits instead of byte to byte, and nothing needs widening.
#if defined(__aarch64__)

#include <arm_neon.h>
#include <sys/auxv.h>

#include <cstring>

#include "kernel_loops.h"

#if defined(__clang__)
#define BINVPR_DOT_PRODUCT __attribute__((target("dotprod")))
#else
#define BINVPR_DOT_PRODUCT __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

namespace binvpr {
namespace {

constexpr int kVectorWords = 4;
constexpr int kBlock = 4;                 // filters that are counted together, against four pixels
constexpr int kVectorsBeforeFlush = 31;   // a vector adds 8 at most to a byte
constexpr unsigned long kHasDotProduct = 1UL << 20;  // HWCAP_ASIMDDP, missing in old headers
static_assert(kTilePixels == 4 && kTileChannels % kBlock == 0, "the registers are laid out for 4 x 4 sums");

constexpr int vectors_for(int words) { return (words + kVectorWords - 1) / kVectorWords; }

void stage(const std::int32_t* words, int count, std::uint8_t* staged) {
  std::memcpy(staged, words, static_cast<std::size_t>(count) * sizeof(*words));
}

// [block of 4 channels][run][vector][channel], runs filled up with zeros to whole vectors.
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

inline uint8x16_t load_words(const std::uint8_t* staged, int words) {
  std::uint8_t bytes[16] = {};
  std::memcpy(bytes, staged, static_cast<std::size_t>(words) * sizeof(std::int32_t));
  return vld1q_u8(bytes);
}

inline uint8x16_t differing(uint8x16_t filter, uint8x16_t pixel) { return vcntq_u8(veorq_u8(filter, pixel)); }

// Sums of one pixel against four filters.
struct ByteSums {
  uint8x16_t a, b, c, d;

  void clear() { a = b = c = d = vdupq_n_u8(0); }

  void add(const uint8x16_t* filters, uint8x16_t pixel) {
    a = vaddq_u8(a, differing(filters[0], pixel));
    b = vaddq_u8(b, differing(filters[1], pixel));
    c = vaddq_u8(c, differing(filters[2], pixel));
    d = vaddq_u8(d, differing(filters[3], pixel));
  }

  // The four sums over the bytes, at most 16 * 248 each.
  uint16x4_t total() const {
    const uint16x8_t ab = vpaddq_u16(vpaddlq_u8(a), vpaddlq_u8(b));
    const uint16x8_t cd = vpaddq_u16(vpaddlq_u8(c), vpaddlq_u8(d));
    const uint16x8_t abcd = vpaddq_u16(ab, cd);
    return vget_low_u16(vpaddq_u16(abcd, abcd));
  }
};

void count_bytes(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                 int channels, std::uint16_t* counts) {
  for (int block = 0; block < channels; block += kBlock) {
    ByteSums s0, s1, s2, s3;
    s0.clear(), s1.clear(), s2.clear(), s3.clear();
    uint16x4_t t0 = vdup_n_u16(0), t1 = t0, t2 = t0, t3 = t0;
    int room = kVectorsBeforeFlush;
    const auto flush = [&] {
      t0 = vadd_u16(t0, s0.total());
      t1 = vadd_u16(t1, s1.total());
      t2 = vadd_u16(t2, s2.total());
      t3 = vadd_u16(t3, s3.total());
      s0.clear(), s1.clear(), s2.clear(), s3.clear();
      room = kVectorsBeforeFlush;
    };
    for (int r = 0; r < run_count; ++r) {
      const std::uint8_t* p0 = pixels[0] + runs[r].offset;
      const std::uint8_t* p1 = pixels[1] + runs[r].offset;
      const std::uint8_t* p2 = pixels[2] + runs[r].offset;
      const std::uint8_t* p3 = pixels[3] + runs[r].offset;
      for (int left = runs[r].words / kVectorWords; left > 0;) {
        const int vectors = std::min(left, room);
        left -= vectors;
        room -= vectors;
        for (int vector = 0; vector < vectors; ++vector) {
          const uint8x16_t filters[kBlock] = {vld1q_u8(packed), vld1q_u8(packed + 16), vld1q_u8(packed + 32),
                                              vld1q_u8(packed + 48)};
          packed += 64;
          s0.add(filters, vld1q_u8(p0));
          s1.add(filters, vld1q_u8(p1));
          s2.add(filters, vld1q_u8(p2));
          s3.add(filters, vld1q_u8(p3));
          p0 += 16, p1 += 16, p2 += 16, p3 += 16;
        }
        if (room == 0) flush();
      }
      const int rest = runs[r].words % kVectorWords;
      if (rest > 0) {
        const uint8x16_t filters[kBlock] = {vld1q_u8(packed), vld1q_u8(packed + 16), vld1q_u8(packed + 32),
                                            vld1q_u8(packed + 48)};
        packed += 64;
        s0.add(filters, load_words(p0, rest));
        s1.add(filters, load_words(p1, rest));
        s2.add(filters, load_words(p2, rest));
        s3.add(filters, load_words(p3, rest));
        if (--room == 0) flush();
      }
    }
    flush();
    vst1_u16(counts + block, t0);
    vst1_u16(counts + kTileChannels + block, t1);
    vst1_u16(counts + 2 * kTileChannels + block, t2);
    vst1_u16(counts + 3 * kTileChannels + block, t3);
  }
}

BINVPR_DOT_PRODUCT inline uint32x4_t add_dot(uint32x4_t sum, uint8x16_t filter, uint8x16_t pixel, uint8x16_t ones) {
  return vdotq_u32(sum, differing(filter, pixel), ones);
}

BINVPR_DOT_PRODUCT inline uint16x4_t total_of(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
  return vmovn_u32(vpaddq_u32(vpaddq_u32(a, b), vpaddq_u32(c, d)));
}

BINVPR_DOT_PRODUCT void count_dots(const std::uint8_t* const* pixels, const Run* runs, int run_count,
                                   const std::uint8_t* packed, int channels, std::uint16_t* counts) {
  const uint8x16_t ones = vdupq_n_u8(1);
  for (int block = 0; block < channels; block += kBlock) {
    const uint32x4_t zero = vdupq_n_u32(0);
    uint32x4_t a0 = zero, a1 = zero, a2 = zero, a3 = zero, b0 = zero, b1 = zero, b2 = zero, b3 = zero;
    uint32x4_t c0 = zero, c1 = zero, c2 = zero, c3 = zero, d0 = zero, d1 = zero, d2 = zero, d3 = zero;
    for (int r = 0; r < run_count; ++r) {
      for (int word = 0; word < runs[r].words; word += kVectorWords) {
        const std::ptrdiff_t at = runs[r].offset + 4 * word;
        const int rest = runs[r].words - word;
        const bool whole = rest >= kVectorWords;
        const uint8x16_t w0 = whole ? vld1q_u8(pixels[0] + at) : load_words(pixels[0] + at, rest);
        const uint8x16_t w1 = whole ? vld1q_u8(pixels[1] + at) : load_words(pixels[1] + at, rest);
        const uint8x16_t w2 = whole ? vld1q_u8(pixels[2] + at) : load_words(pixels[2] + at, rest);
        const uint8x16_t w3 = whole ? vld1q_u8(pixels[3] + at) : load_words(pixels[3] + at, rest);
        const uint8x16_t a = vld1q_u8(packed), b = vld1q_u8(packed + 16);
        const uint8x16_t c = vld1q_u8(packed + 32), d = vld1q_u8(packed + 48);
        packed += 64;
        a0 = add_dot(a0, a, w0, ones), a1 = add_dot(a1, a, w1, ones);
        a2 = add_dot(a2, a, w2, ones), a3 = add_dot(a3, a, w3, ones);
        b0 = add_dot(b0, b, w0, ones), b1 = add_dot(b1, b, w1, ones);
        b2 = add_dot(b2, b, w2, ones), b3 = add_dot(b3, b, w3, ones);
        c0 = add_dot(c0, c, w0, ones), c1 = add_dot(c1, c, w1, ones);
        c2 = add_dot(c2, c, w2, ones), c3 = add_dot(c3, c, w3, ones);
        d0 = add_dot(d0, d, w0, ones), d1 = add_dot(d1, d, w1, ones);
        d2 = add_dot(d2, d, w2, ones), d3 = add_dot(d3, d, w3, ones);
      }
    }
    vst1_u16(counts + block, total_of(a0, b0, c0, d0));
    vst1_u16(counts + kTileChannels + block, total_of(a1, b1, c1, d1));
    vst1_u16(counts + 2 * kTileChannels + block, total_of(a2, b2, c2, d2));
    vst1_u16(counts + 3 * kTileChannels + block, total_of(a3, b3, c3, d3));
  }
}

// Input of four bits: sixteen sums for each four channels, one for each choice of them.
constexpr int kLevelTable = kLevels;
constexpr int kLookUpLanes = 16;
static_assert(4 * 4 * (kLevels - 1) <= 255, "four look-ups fit a byte");

void stage_levels(const std::int8_t* values, int count, std::int8_t zero, std::uint8_t* staged) {
  const uint8x16_t place = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (int i = 0; i < count; i += 16) {
    const uint8x16_t levels = vreinterpretq_u8_s8(vsubq_s8(vld1q_s8(values + i), vdupq_n_s8(zero)));
    for (int table = 0; table < 4; ++table, staged += kLevelTable) {
      uint8x16_t sums = vdupq_n_u8(0);
      for (int channel = 0; channel < 4; ++channel) {
        // Where this bit of the place in the table is set, the channel takes part.
        const uint8x16_t chosen = vtstq_u8(place, vdupq_n_u8(static_cast<std::uint8_t>(1 << channel)));
        const uint8x16_t source = vdupq_n_u8(static_cast<std::uint8_t>(4 * table + channel));
        sums = vaddq_u8(sums, vandq_u8(chosen, vqtbl1q_u8(levels, source)));
      }
      vst1q_u8(staged, sums);
    }
  }
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

void multiply(const std::int16_t* patches, int length, const std::int16_t* weights, const std::int32_t* bias,
              std::int32_t* sums) {
  for (int first = 0; first < kTileChannels; first += 8) {
    const int32x4_t a = vld1q_s32(bias + first), b = vld1q_s32(bias + first + 4);
    int32x4_t low[kTilePixels] = {a, a, a, a}, high[kTilePixels] = {b, b, b, b};
    for (int i = 0; i < length; i += 2) {
      const int16x8x2_t weight = vld2q_s16(weights + i * kTileChannels + 2 * first);
      for (int pixel = 0; pixel < kTilePixels; ++pixel) {
        const std::int16_t* values = patches + pixel * length + i;
        low[pixel] = vmlal_n_s16(low[pixel], vget_low_s16(weight.val[0]), values[0]);
        high[pixel] = vmlal_n_s16(high[pixel], vget_high_s16(weight.val[0]), values[0]);
        low[pixel] = vmlal_n_s16(low[pixel], vget_low_s16(weight.val[1]), values[1]);
        high[pixel] = vmlal_n_s16(high[pixel], vget_high_s16(weight.val[1]), values[1]);
      }
    }
    for (int pixel = 0; pixel < kTilePixels; ++pixel) {
      vst1q_s32(sums + pixel * kTileChannels + first, low[pixel]);
      vst1q_s32(sums + pixel * kTileChannels + first + 4, high[pixel]);
    }
  }
}

// As loop_requantize, four channels at a time.
void requantize(const std::int32_t* sums, int channels, const Requantization& to, std::int8_t* output) {
  int i = 0;
  for (; i + 4 <= channels; i += 4) {
    const int32x4_t high = vqrdmulhq_s32(vld1q_s32(sums + i), vld1q_s32(to.multipliers + i));
    const int32x4_t rounded = vrshlq_s32(high, vnegq_s32(vld1q_s32(to.shifts + i)));
    const int32x4_t value = vaddq_s32(rounded, vdupq_n_s32(to.zero_point));
    const int32x4_t bounded = vmaxq_s32(vdupq_n_s32(to.min), vminq_s32(vdupq_n_s32(to.max), value));
    for (int lane = 0; lane < 4; ++lane) output[i + lane] = static_cast<std::int8_t>(bounded[lane]);
  }
  Requantization rest = to;
  rest.multipliers += i;
  rest.shifts += i;
  loop_requantize(sums + i, channels - i, rest, output + i);
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

void pack_int8(const std::int8_t* values, int count, std::int8_t zero_point, std::int32_t* words) {
  const int8x16_t zero = vdupq_n_s8(zero_point);
  for (; count >= kWordBits; count -= kWordBits, values += kWordBits) {
    const std::uint32_t low = bits_of(vcltq_s8(vld1q_s8(values), zero));
    const std::uint32_t high = bits_of(vcltq_s8(vld1q_s8(values + 16), zero));
    *words++ = static_cast<std::int32_t>(high << 16 | low);
  }
  loop_pack_int8(values, count, zero_point, words);
}

double peak(long rounds) {
  uint8x16_t filters[kBlock] = {vdupq_n_u8(1), vdupq_n_u8(2), vdupq_n_u8(3), vdupq_n_u8(4)};
  uint8x16_t pixel = vdupq_n_u8(5);
  ByteSums s, t;
  s.clear(), t.clear();
  for (long i = 0; i < rounds; ++i) {
    asm volatile("" : "+w"(pixel), "+w"(filters[0]), "+w"(filters[1]), "+w"(filters[2]), "+w"(filters[3]));
    s.add(filters, pixel);
    asm volatile("" : "+w"(pixel), "+w"(filters[0]), "+w"(filters[1]), "+w"(filters[2]), "+w"(filters[3]));
    t.add(filters, pixel);
  }
  asm volatile("" ::"w"(s.a), "w"(s.b), "w"(s.c), "w"(s.d), "w"(t.a), "w"(t.b), "w"(t.c), "w"(t.d));
  return 8.0 * 128 * static_cast<double>(rounds);
}

}  // namespace

const QuantizedKernel kNeonQuantized = {
    kWordBits / 4 * kLevelTable, stage_levels, loop_pack_bytes, count_levels, loop_combine, multiply, requantize,
};

const Kernel kNeonKernel = {
    "neon", kNeonQuantized, [] { return true; }, sizeof(std::int32_t), stage, pack, count_bytes, reach, loop_add_doubled, loop_to_float, loop_to_int8,
    pack_float, pack_int8, peak,
};

const Kernel kNeonDotKernel = {
    "neon_dot", kNeonQuantized, [] { return (getauxval(AT_HWCAP) & kHasDotProduct) != 0; }, sizeof(std::int32_t), stage, pack,
    count_dots, reach, loop_add_doubled, loop_to_float, loop_to_int8, pack_float, pack_int8, peak,
};

}  // namespace binvpr

#endif
