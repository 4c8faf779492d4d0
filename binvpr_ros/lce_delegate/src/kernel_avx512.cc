// SPDX-License-Identifier: Apache-2.0
// x86-64 with AVX-512, its population count, dot products and shuffles of bytes (VPOPCNTDQ, VNNI, VBMI: Ice Lake, Zen 4
// and later).
//
// A vector holds a word of each of 16 filters, so that the sums of 16 channels grow side by side and never need adding
// up across a vector: exclusive or with the pixel's word, count, add; 512 multiply-accumulates in three instructions.
#if defined(__x86_64__)

#if !defined(__clang__)  // GCC 12 warns of its own headers
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "target.h"
BINVPR_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512vpopcntdq,avx512vnni,avx512vbmi,avx2,fma,popcnt")

#include <immintrin.h>

#include "kernel_loops.h"

namespace binvpr {
namespace {

constexpr int kLane = 16;  // filters of a vector, a word each
static_assert(kTilePixels == 4 && kTileChannels == 4 * kLane, "the registers are laid out for 4 x 4 sums");

// [word][channel]
void pack(const std::int32_t* const* filters, const std::vector<Run>& runs, std::vector<std::uint8_t>& packed) {
  int words = 0;
  for (const Run& run : runs) words += run.words;
  const std::size_t before = packed.size();
  packed.resize(before + kTileChannels * sizeof(std::int32_t) * static_cast<std::size_t>(words));
  for (int channel = 0; channel < kTileChannels; ++channel) {
    if (filters[channel] == nullptr) continue;
    std::uint8_t* to = packed.data() + before + sizeof(std::int32_t) * static_cast<std::size_t>(channel);
    for (int word = 0; word < words; ++word, to += kTileChannels * sizeof(std::int32_t)) {
      std::memcpy(to, filters[channel] + word, sizeof(std::int32_t));
    }
  }
}

// Of the values from `first` on, up to kLane.
inline __mmask16 those_left(int first, int count) {
  return static_cast<__mmask16>(count - first >= kLane ? 0xffff : count <= first ? 0 : (1U << (count - first)) - 1);
}

inline __m512i word_at(const std::uint8_t* staged) {
  std::int32_t word;
  std::memcpy(&word, staged, sizeof(word));
  return _mm512_set1_epi32(word);
}

inline __m512i add_differing(__m512i sum, __m512i filters, __m512i pixel) {
  return _mm512_add_epi32(sum, _mm512_popcnt_epi32(_mm512_xor_si512(filters, pixel)));
}

inline void store_row(std::uint16_t* counts, __m512i a, __m512i b, __m512i c, __m512i d) {
  auto* row = reinterpret_cast<__m256i*>(counts);
  _mm256_store_si256(row, _mm512_cvtepi32_epi16(a));
  _mm256_store_si256(row + 1, _mm512_cvtepi32_epi16(b));
  _mm256_store_si256(row + 2, _mm512_cvtepi32_epi16(c));
  _mm256_store_si256(row + 3, _mm512_cvtepi32_epi16(d));
}

// Counts a tile, of which finish(pixel, a, b, c, d) gets each pixel's sums while they are in registers.
template <int Vectors, typename Finish>
inline void count_vectors(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                          Finish finish) {
  const __m512i zero = _mm512_setzero_si512();
  // Four vectors of sums a pixel. Plain variables: arrays would live on the stack.
  __m512i a0 = zero, a1 = zero, a2 = zero, a3 = zero, b0 = zero, b1 = zero, b2 = zero, b3 = zero;
  __m512i c0 = zero, c1 = zero, c2 = zero, c3 = zero, d0 = zero, d1 = zero, d2 = zero, d3 = zero;
  for (int r = 0; r < run_count; ++r) {
    const std::uint8_t* p0 = pixels[0] + runs[r].offset;
    const std::uint8_t* p1 = pixels[1] + runs[r].offset;
    const std::uint8_t* p2 = pixels[2] + runs[r].offset;
    const std::uint8_t* p3 = pixels[3] + runs[r].offset;
    for (int word = 0; word < runs[r].words; ++word) {
      const auto* filters = reinterpret_cast<const __m512i*>(packed);
      packed += kTileChannels * sizeof(std::int32_t);
      const __m512i w0 = word_at(p0 + 4 * word), w1 = word_at(p1 + 4 * word);
      const __m512i w2 = word_at(p2 + 4 * word), w3 = word_at(p3 + 4 * word);
      const __m512i a = _mm512_load_si512(filters);
      a0 = add_differing(a0, a, w0);
      a1 = add_differing(a1, a, w1);
      a2 = add_differing(a2, a, w2);
      a3 = add_differing(a3, a, w3);
      if (Vectors < 2) continue;
      const __m512i b = _mm512_load_si512(filters + 1);
      b0 = add_differing(b0, b, w0);
      b1 = add_differing(b1, b, w1);
      b2 = add_differing(b2, b, w2);
      b3 = add_differing(b3, b, w3);
      if (Vectors < 4) continue;
      const __m512i c = _mm512_load_si512(filters + 2);
      c0 = add_differing(c0, c, w0);
      c1 = add_differing(c1, c, w1);
      c2 = add_differing(c2, c, w2);
      c3 = add_differing(c3, c, w3);
      const __m512i d = _mm512_load_si512(filters + 3);
      d0 = add_differing(d0, d, w0);
      d1 = add_differing(d1, d, w1);
      d2 = add_differing(d2, d, w2);
      d3 = add_differing(d3, d, w3);
    }
  }
  finish(0, a0, b0, c0, d0);
  finish(1, a1, b1, c1, d1);
  finish(2, a2, b2, c2, d2);
  finish(3, a3, b3, c3, d3);
}

// Calls work with the number of vectors that so many channels need, as a type.
template <typename Work>
inline void with_vectors(int channels, Work work) {
  if (channels > 2 * kLane) return work(std::integral_constant<int, 4>());
  if (channels > kLane) return work(std::integral_constant<int, 2>());
  work(std::integral_constant<int, 1>());
}

void count(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed, int channels,
           std::uint16_t* counts) {
  with_vectors(channels, [&](auto vectors) {
    count_vectors<vectors>(pixels, runs, run_count, packed, [&](int pixel, __m512i a, __m512i b, __m512i c, __m512i d) {
      store_row(counts + pixel * kTileChannels, a, b, c, d);
    });
  });
}

// Whole vectors, as what reads the sums does: a load that needs two stores waits for both.
void add_doubled(const std::uint16_t* counts, std::int32_t* sums) {
  for (int i = 0; i < kTileChannels; i += kLane) {
    const __m512i count = _mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(counts + i)));
    _mm512_store_si512(sums + i, _mm512_add_epi32(_mm512_load_si512(sums + i), _mm512_slli_epi32(count, 1)));
  }
}

// Input of four bits: of each four channels the sixteen sums that there can be, one for each choice of them. A vector has
// those of sixteen channels, and a byte of a filter says which of them it takes: the four sums of a filter lie side by
// side, so that a dot product adds them up.
constexpr int kLevelTable = kLevels;

// Which of 32 levels, and of the 32 bytes behind them with the sums of pairs, stand in the tables of the first sixteen
// channels for their places' lower two bits, and for the upper two. Where both are 0 there is none.
struct LevelSources {
  alignas(64) std::uint8_t low[64] = {}, high[64] = {};
  constexpr LevelSources() {
    for (int i = 0; i < 64; ++i) {
      const int channel = i / kLevelTable * 4;
      const int sources[] = {0, channel, channel + 1, 32 + channel};
      const int place = i % kLevelTable;
      low[i] = static_cast<std::uint8_t>(sources[place % 4]);
      high[i] = static_cast<std::uint8_t>(sources[place / 4] + 2);
    }
  }
};
constexpr LevelSources kLevelSources;

std::int32_t stage_levels(const std::int8_t* values, int count, std::int8_t zero, std::uint8_t* staged) {
  constexpr __mmask64 kLow = 0xeeeeeeeeeeeeeeee, kHigh = 0xfff0fff0fff0fff0;
  const __m512i low = _mm512_load_si512(kLevelSources.low), high = _mm512_load_si512(kLevelSources.high);
  const __m512i next = _mm512_set1_epi8(16);
  const __m512i next_low = _mm512_add_epi8(low, next), next_high = _mm512_add_epi8(high, next);
  const __m256i least = _mm256_set1_epi8(zero);
  __m256i total = _mm256_setzero_si256();
  for (int i = 0; i < count; i += kWordBits, staged += 128) {
    const __m256i levels = _mm256_sub_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + i)), least);
    total = _mm256_add_epi64(total, _mm256_sad_epu8(levels, _mm256_setzero_si256()));
    const __m256i pairs = _mm256_add_epi8(levels, _mm256_srli_epi16(levels, 8));  // in even bytes
    const __m512i all = _mm512_inserti64x4(_mm512_castsi256_si512(levels), pairs, 1);
    const auto tables = [all](__m512i lower, __m512i upper) {
      return _mm512_add_epi8(_mm512_maskz_permutexvar_epi8(kLow, lower, all), _mm512_maskz_permutexvar_epi8(kHigh, upper, all));
    };
    _mm512_storeu_si512(staged, tables(low, high));
    _mm512_storeu_si512(staged + 64, tables(next_low, next_high));
  }
  const __m128i sum = _mm_add_epi64(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
  return _mm_cvtsi128_si32(sum) + _mm_extract_epi32(sum, 2);
}

// [word][half][channel][4]: which of 64 sums.
void pack_levels(const std::int32_t* const* filters, const std::vector<Run>& runs, std::vector<std::uint8_t>& packed) {
  int words = 0;
  for (const Run& run : runs) words += run.words;
  for (int half_word = 0; half_word < 2 * words; ++half_word) {
    for (int channel = 0; channel < kTileChannels; ++channel) {
      const auto bits = filters[channel] ? static_cast<std::uint32_t>(filters[channel][half_word / 2]) : 0U;
      for (int table = 0; table < 4; ++table) {
        const std::uint32_t signs = bits >> (16 * (half_word % 2) + 4 * table) & 0xf;
        packed.push_back(static_cast<std::uint8_t>(static_cast<std::uint32_t>(table) * kLevelTable + signs));
      }
    }
  }
}

// sums[pixel][v]; at first zero.
template <int Vectors>
inline void add_levels(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                       __m512i (&sums)[kTilePixels][Vectors]) {
  const __m512i ones = _mm512_set1_epi8(1);
  for (int r = 0; r < run_count; ++r) {
    for (int step = 0; step < 2 * runs[r].words; ++step, packed += 4 * kTileChannels) {
      __m512i tables[kTilePixels];
      for (int i = 0; i < kTilePixels; ++i) tables[i] = _mm512_loadu_si512(pixels[i] + runs[r].offset + 64 * step);
      for (int v = 0; v < Vectors; ++v) {
        const __m512i chosen = _mm512_load_si512(packed + 64 * v);
        for (int i = 0; i < kTilePixels; ++i) {
          sums[i][v] = _mm512_dpbusd_epi32(sums[i][v], _mm512_permutexvar_epi8(chosen, tables[i]), ones);
        }
      }
    }
  }
}

void count_levels(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                  int channels, std::uint16_t* counts) {
  with_vectors(channels, [&](auto vectors) {
    __m512i sums[kTilePixels][vectors] = {};
    add_levels(pixels, runs, run_count, packed, sums);
    for (int i = 0; i < kTilePixels; ++i) {
      for (int v = 0; v < vectors; ++v) {
        auto* to = reinterpret_cast<__m256i*>(counts + i * kTileChannels + kLane * v);
        _mm256_store_si256(to, _mm512_cvtepi32_epi16(sums[i][v]));
      }
    }
  });
}

// Dot products are of unsigned values with signed ones.
constexpr std::int32_t kValueOffset = 128;

void stage_values(const std::int8_t* values, int count, std::uint8_t* staged) {
  for (int i = 0; i < count; ++i) staged[i] = static_cast<std::uint8_t>(values[i] + kValueOffset);
}

void combine(const std::int32_t* doubled, int channels, std::int32_t total, const std::int32_t* magnitudes,
             const std::int32_t* bias, std::int32_t* sums) {
  const __m512i all = _mm512_set1_epi32(total);
  for (int i = 0; i < channels; i += kLane) {
    const __mmask16 left = those_left(i, channels);
    const __m512i sum = _mm512_sub_epi32(all, _mm512_load_si512(doubled + i));
    const __m512i product = _mm512_mullo_epi32(_mm512_maskz_loadu_epi32(left, magnitudes + i), sum);
    _mm512_store_si512(sums + i, _mm512_add_epi32(_mm512_maskz_loadu_epi32(left, bias + i), product));
  }
}

// Of each 64 bits, in the place of the lower ones.
inline __m512i upper_halves(__m512i values) { return _mm512_shuffle_epi32(values, _MM_PERM_DDBB); }

// From the sums of a tile, as loop_requantize, but for the zero point and the bounds.
template <int Vectors>
inline void scale(__m512i (&of)[kTilePixels][Vectors], const Requantization& to) {
  const __m512i nudge = _mm512_set1_epi64(std::int64_t{1} << 31);
  for (int v = 0; v < Vectors; ++v) {
    const __m512i even_factor = _mm512_loadu_si512(to.multipliers + kLane * v), odd_factor = upper_halves(even_factor);
    const __m512i half = _mm512_loadu_si512(to.halves + kLane * v), shift = _mm512_loadu_si512(to.shifts + kLane * v);
    for (auto& pixel : of) {
      // Of twice the sums, so that what is wanted of a product is its upper half.
      const __m512i doubled = _mm512_add_epi32(pixel[v], pixel[v]);
      const __m512i even = _mm512_add_epi64(_mm512_mul_epi32(doubled, even_factor), nudge);
      const __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(upper_halves(doubled), odd_factor), nudge);
      const __m512i high = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
      pixel[v] = _mm512_srav_epi32(_mm512_add_epi32(high, half), shift);
    }
  }
}

template <int Vectors>
inline void store_int8(const __m512i (&of)[kTilePixels][Vectors], const Requantization& to, const Int8Tile& tile) {
  const __m512i zero_point = _mm512_set1_epi16(static_cast<std::int16_t>(to.zero_point));
  const __m512i min = _mm512_set1_epi8(static_cast<char>(to.min)), max = _mm512_set1_epi8(static_cast<char>(to.max));
  const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __mmask64 there = ~std::uint64_t{0} >> (kTileChannels - tile.channels);
  for (int pixel = 0; pixel < kTilePixels && pixel < tile.pixels; ++pixel) {
    const auto vector = [&](int v) { return v < Vectors ? of[pixel][v < Vectors ? v : 0] : zero_point; };
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(vector(0), vector(1)), zero_point);
    const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(vector(2), vector(3)), zero_point);
    const __m512i bounded = _mm512_max_epi8(min, _mm512_min_epi8(max, _mm512_packs_epi16(low, high)));
    std::int8_t* values = tile.values + static_cast<std::size_t>(pixel) * tile.stride;
    _mm512_mask_storeu_epi8(values, there, _mm512_permutexvar_epi32(in_order, bounded));
  }
}

void requantize(const std::int32_t* sums, const Requantization& to, const Int8Tile& tile) {
  __m512i of[kTilePixels][4];
  for (int i = 0; i < kTilePixels; ++i) {
    for (int v = 0; v < 4; ++v) of[i][v] = _mm512_load_si512(sums + i * kTileChannels + kLane * v);
  }
  scale(of, to);
  store_int8(of, to, tile);
}

void count_to_int8(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                   const std::int32_t* totals, const std::int32_t* magnitudes, const std::int32_t* bias,
                   const Requantization& to, const Int8Tile& tile) {
  with_vectors(tile.channels, [&](auto vectors) {
    __m512i sums[kTilePixels][vectors] = {};
    add_levels(pixels, runs, run_count, packed, sums);
    for (int v = 0; v < vectors; ++v) {
      const __m512i factor = _mm512_loadu_si512(magnitudes + kLane * v), first = _mm512_loadu_si512(bias + kLane * v);
      for (int i = 0; i < kTilePixels; ++i) {
        const __m512i signed_sum = _mm512_sub_epi32(_mm512_set1_epi32(totals[i]), _mm512_slli_epi32(sums[i][v], 1));
        sums[i][v] = _mm512_add_epi32(first, _mm512_mullo_epi32(factor, signed_sum));
      }
    }
    scale(sums, to);
    store_int8(sums, to, tile);
  });
}

template <int Vectors>
void multiply_by(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                 const std::int32_t* bias, const Requantization& to, const Int8Tile& tile) {
  __m512i of[kTilePixels][Vectors];
  for (int i = 0; i < kTilePixels; ++i) {
    for (int v = 0; v < Vectors; ++v) of[i][v] = _mm512_loadu_si512(bias + kLane * v);
  }
  for (int r = 0; r < run_count; ++r) {
    for (int value = 0; value < runs[r].words; value += 4, packed += 4 * kTileChannels) {
      __m512i values[kTilePixels];
      for (int i = 0; i < kTilePixels; ++i) values[i] = word_at(pixels[i] + runs[r].offset + value);
      for (int v = 0; v < Vectors; ++v) {
        const __m512i filters = _mm512_load_si512(packed + 64 * v);
        for (int i = 0; i < kTilePixels; ++i) of[i][v] = _mm512_dpbusd_epi32(of[i][v], values[i], filters);
      }
    }
  }
  scale(of, to);
  store_int8(of, to, tile);
}

void multiply(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
              const std::int32_t* bias, const Requantization& to, const Int8Tile& tile) {
  with_vectors(tile.channels, [&](auto vectors) {
    multiply_by<vectors>(pixels, runs, run_count, packed, bias, to, tile);
  });
}

void to_float(const std::int32_t* doubled, int channels, const RealTransform& transform, const float* shortcut,
              float* values, std::int32_t* packed) {
  const __m512i clamp_max = _mm512_set1_epi32(transform.clamp_max), clamp_min = _mm512_set1_epi32(transform.clamp_min);
  const __m512 least = _mm512_set1_ps(kNegative);
  std::uint64_t bits = 0;
  for (int i = 0; i < channels; i += kLane) {
    const __mmask16 left = those_left(i, channels);
    const __m512i sum = _mm512_maskz_loadu_epi32(left, doubled + i);
    const __m512 clamped = _mm512_cvtepi32_ps(_mm512_max_epi32(_mm512_min_epi32(sum, clamp_max), clamp_min));
    __m512 value = _mm512_add_ps(_mm512_mul_ps(clamped, _mm512_maskz_loadu_ps(left, transform.multiplier + i)),
                                 _mm512_maskz_loadu_ps(left, transform.bias + i));
    if (shortcut != nullptr) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(left, shortcut + i));
    _mm512_mask_storeu_ps(values + i, left, value);
    bits |= static_cast<std::uint64_t>(_mm512_mask_cmp_ps_mask(left, value, least, _CMP_LE_OQ)) << i;
  }
  for (int word = 0; packed != nullptr && word < words_for(channels); ++word, bits >>= kWordBits) {
    packed[word] = static_cast<std::int32_t>(static_cast<std::uint32_t>(bits));
  }
}

// Of whole tiles that nothing clamps. Layouts by value: what is written might be the caller's.
template <bool HasShortcut>
void count_to_float_of(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                       const RealTransform transform, const FloatTile tile) {
  std::int32_t unread_signs[kTileChannels / kWordBits];
  const __m512 least = _mm512_set1_ps(kNegative);
  count_vectors<4>(pixels, runs, run_count, packed, [&](int pixel, __m512i a, __m512i b, __m512i c, __m512i d) {
    if (pixel >= tile.pixels) return;
    const auto at = static_cast<std::size_t>(pixel);
    const float* shortcut = HasShortcut ? tile.shortcut + at * tile.shortcut_stride : nullptr;
    float* values = tile.values + at * tile.stride;
    const __m512i sums[] = {a, b, c, d};
    __mmask16 negative[4];
    for (int v = 0; v < 4; ++v) {
      const int i = kLane * v;
      const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_slli_epi32(sums[v], 1)), _mm512_loadu_ps(transform.multiplier + i));
      __m512 value = _mm512_add_ps(scaled, _mm512_loadu_ps(transform.bias + i));
      if (HasShortcut) value = _mm512_add_ps(value, _mm512_loadu_ps(shortcut + i));
      _mm512_storeu_ps(values + i, value);
      negative[v] = _mm512_cmp_ps_mask(value, least, _CMP_LE_OQ);
    }
    std::int32_t* signs = tile.signs != nullptr ? tile.signs + at * tile.signs_stride : unread_signs;
    signs[0] = static_cast<std::int32_t>(_mm512_kunpackw(negative[1], negative[0]));
    signs[1] = static_cast<std::int32_t>(_mm512_kunpackw(negative[3], negative[2]));
  });
}

void count_to_float(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                    const RealTransform& transform, const FloatTile& tile) {
  if (tile.channels < kTileChannels || transform.clamps) {
    return loop_count_to_float(pixels, runs, run_count, packed, transform, tile, count, to_float);
  }
  const auto whole = tile.shortcut != nullptr ? count_to_float_of<true> : count_to_float_of<false>;
  whole(pixels, runs, run_count, packed, transform, tile);
}

std::uint64_t reach(const std::uint16_t* counts, const std::uint16_t* thresholds) {
  std::uint64_t bits = 0;
  for (int half = 0; half < 2; ++half) {
    const __m512i count = _mm512_load_si512(counts + 32 * half);
    const __m512i threshold = _mm512_loadu_si512(thresholds + 32 * half);
    bits |= static_cast<std::uint64_t>(_mm512_cmpge_epu16_mask(count, threshold)) << 32 * half;
  }
  return bits;
}

void pack_float(const float* values, int count, std::int32_t* words) {
  const __m512 least = _mm512_set1_ps(kNegative);
  for (; count >= kWordBits; count -= kWordBits, values += kWordBits) {
    const unsigned low = _mm512_cmp_ps_mask(_mm512_loadu_ps(values), least, _CMP_LE_OQ);
    const unsigned high = _mm512_cmp_ps_mask(_mm512_loadu_ps(values + 16), least, _CMP_LE_OQ);
    *words++ = static_cast<std::int32_t>(high << 16 | low);
  }
  loop_pack_float(values, count, words);
}

void quantize(const float* values, std::size_t count, float inverse_scale, int zero_point, std::int8_t* output) {
  const __m512 factor = _mm512_set1_ps(inverse_scale), most = _mm512_set1_ps(1000), least = _mm512_set1_ps(-1000);
  const __m512i zero = _mm512_set1_epi32(zero_point);
  for (; count >= kLane; count -= kLane, values += kLane, output += kLane) {
    const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(values), factor);
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_max_ps(_mm512_min_ps(scaled, most), least));
    const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_add_epi32(rounded, zero));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(output), bytes);
  }
  loop_quantize(values, count, inverse_scale, zero_point, output);
}

void pack_int8(const std::int8_t* values, int count, std::int8_t zero_point, std::int32_t* words) {
  const __m256i zero = _mm256_set1_epi8(zero_point);
  for (; count >= kWordBits; count -= kWordBits, values += kWordBits) {
    const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
    *words++ = static_cast<std::int32_t>(_mm256_cmplt_epi8_mask(value, zero));
  }
  loop_pack_int8(values, count, zero_point, words);
}

// The bits in which two descriptors of whole vectors differ: sums of 64 bits, of each eighth word.
template <std::size_t Vectors>
inline __m512i differing_words(const __m512i* descriptor, const std::uint8_t* query) {
  __m512i sum = _mm512_setzero_si512();
  for (std::size_t i = 0; i < Vectors; ++i) {
    const __m512i differing = _mm512_xor_si512(descriptor[i], _mm512_loadu_si512(query + 64 * i));
    sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(differing));
  }
  return sum;
}

// Two sums of 64 bits, small ones, side by side; and what is added up of two pairs of such, or of four.
inline __m512i beside(__m512i a, __m512i b) { return _mm512_add_epi64(a, _mm512_slli_epi64(b, 32)); }
inline __m512i added_up(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

// Eight views at a time, whose sums are added up across vectors together: one by one that takes longer than counting.
template <std::size_t Vectors>
void hamming_of(const std::uint8_t* descriptors, std::size_t count, const std::uint8_t* queries, std::size_t views,
                std::uint32_t* distances) {
  constexpr std::size_t kAhead = 4096, kBytes = 64 * Vectors, kViews = 8;
  for (std::size_t n = 0; n < count; ++n, descriptors += kBytes) {
    __m512i descriptor[Vectors];
    for (std::size_t i = 0; i < Vectors; ++i) {
      __builtin_prefetch(descriptors + kAhead + 64 * i);  // as loop_hamming
      descriptor[i] = _mm512_loadu_si512(descriptors + 64 * i);
    }
    const std::uint8_t* query = queries;
    std::uint32_t least = UINT32_MAX;
    std::size_t left = views;
    for (; left >= kViews; left -= kViews, query += kViews * kBytes) {
      __m512i pairs[kViews / 2];
      for (std::size_t i = 0; i < kViews / 2; ++i) {
        pairs[i] = beside(differing_words<Vectors>(descriptor, query + 2 * i * kBytes),
                          differing_words<Vectors>(descriptor, query + (2 * i + 1) * kBytes));
      }
      const __m512i first = added_up(pairs[0], pairs[1]), last = added_up(pairs[2], pairs[3]);
      const __m512i halves = _mm512_add_epi32(_mm512_shuffle_i64x2(first, last, 0x88), _mm512_shuffle_i64x2(first, last, 0xdd));
      const __m512i sums = _mm512_add_epi32(halves, _mm512_shuffle_i64x2(halves, halves, 0xb1));
      const __m128i four = _mm_min_epu32(_mm512_castsi512_si128(sums), _mm512_extracti32x4_epi32(sums, 2));
      const __m128i two = _mm_min_epu32(four, _mm_shuffle_epi32(four, 0x4e));
      const __m128i one = _mm_min_epu32(two, _mm_shuffle_epi32(two, 0xb1));
      least = std::min(least, static_cast<std::uint32_t>(_mm_cvtsi128_si32(one)));
    }
    for (; left > 0; --left, query += kBytes) {
      const auto sum = _mm512_reduce_add_epi64(differing_words<Vectors>(descriptor, query));
      least = std::min(least, static_cast<std::uint32_t>(sum));
    }
    distances[n] = least;
  }
}

void hamming(const std::uint8_t* descriptors, std::size_t count, std::size_t words, const std::uint8_t* queries,
             std::size_t views, std::uint32_t* distances) {
  switch (words) {
    case 8:
      return hamming_of<1>(descriptors, count, queries, views, distances);
    case 16:
      return hamming_of<2>(descriptors, count, queries, views, distances);
    case 32:
      return hamming_of<4>(descriptors, count, queries, views, distances);
    default:
      break;
  }
  const auto differing_bits = [](const std::uint8_t* a, const std::uint8_t* b, std::size_t left) {
    __m512i sum = _mm512_setzero_si512();
    for (; left >= 8; left -= 8, a += 64, b += 64) {
      const __m512i differing = _mm512_xor_si512(_mm512_loadu_si512(a), _mm512_loadu_si512(b));
      sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(differing));
    }
    if (left > 0) {
      const auto some = static_cast<__mmask8>((1U << left) - 1);
      const __m512i differing = _mm512_xor_si512(_mm512_maskz_loadu_epi64(some, a), _mm512_maskz_loadu_epi64(some, b));
      sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(differing));
    }
    return static_cast<std::uint64_t>(_mm512_reduce_add_epi64(sum));
  };
  loop_hamming(descriptors, count, words, queries, views, distances, differing_bits);
}

void nearest(const std::uint8_t* const* rows, const PackedColumns& columns, int first, std::uint16_t* keys,
             Nearest* found) {
  loop_nearest(rows, columns, first, keys, found, count);
}

// The empty assembly keeps the compiler from doing the same count once for all.
inline void add_apart(__m512i& sum, __m512i& filters, __m512i pixel) {
  asm volatile("" : "+v"(filters));
  sum = add_differing(sum, filters, pixel);
}

double peak(long rounds) {
  __m512i filters = _mm512_set1_epi32(3);
  const __m512i pixel = _mm512_set1_epi32(5);
  __m512i a = filters, b = filters, c = filters, d = filters, e = filters, f = filters, g = filters, h = filters;
  for (long i = 0; i < rounds; ++i) {
    add_apart(a, filters, pixel), add_apart(b, filters, pixel), add_apart(c, filters, pixel);
    add_apart(d, filters, pixel), add_apart(e, filters, pixel), add_apart(f, filters, pixel);
    add_apart(g, filters, pixel), add_apart(h, filters, pixel);
  }
  asm volatile("" ::"v"(a), "v"(b), "v"(c), "v"(d), "v"(e), "v"(f), "v"(g), "v"(h));
  return 8.0 * kLane * kWordBits * static_cast<double>(rounds);
}

bool runs_here() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vpopcntdq") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
}

}  // namespace

const QuantizedKernel kQuantized = {
    kWordBits / 4 * kLevelTable, stage_levels, pack_levels, count_levels, combine,
    1, kValueOffset, stage_values, loop_pack_quads, requantize, count_to_int8, multiply,
};

// GCC takes longer to look up 16 values one by one, for a vector, than eight: decoding is that of AVX2.
const Kernel kAvx512Kernel = {
    "avx512", kQuantized, runs_here, sizeof(std::int32_t), loop_stage, pack, count, reach, add_doubled, to_float, loop_to_int8, count_to_float, quantize, pack_float,
    pack_int8, hamming, nearest, kAvx2Decoding, peak,
};

}  // namespace binvpr

BINVPR_TARGET_END
#endif
