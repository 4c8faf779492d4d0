// SPDX-License-Identifier: Apache-2.0
// x86-64 with AVX2, which has no population count for vectors.
//
// Four input bits of a pixel choose one of sixteen small tables, "in how many bits does a filter's nibble differ from
// this one?", and one byte shuffle looks up 32 filters in it: 128 multiply-accumulates in a shuffle and an addition.
// Counting the bits of an exclusive or takes twice the instructions.
//
// Some of these processors have dot products of bytes (AVX-VNNI: Alder Lake, N100, and later), for layers of eight bits.
#if defined(__x86_64__)

#include "target.h"
BINVPR_TARGET_BEGIN("avx2,fma,popcnt")

#include <immintrin.h>

#include <cstring>

#include "decoding_loops.h"
#include "kernel_loops.h"

namespace binvpr {
namespace {

constexpr int kLane = 32;                          // filters of a vector, a byte each
constexpr int kVectors = kTileChannels / kLane;    // vectors of a tile
constexpr int kNibbles = kWordBits / 4;            // look-ups of a word
constexpr int kWordsBeforeFlush = 255 / 4 / kNibbles;  // a look-up adds 4 at most to a byte
static_assert(kTilePixels == 4 && kVectors == 2, "the registers are laid out for 4 x 2 sums");

struct Tables {
  alignas(64) std::uint8_t differing[16][16];
  constexpr Tables() : differing() {
    for (int a = 0; a < 16; ++a) {
      for (int b = 0; b < 16; ++b) {
        const int x = a ^ b;
        differing[a][b] = static_cast<std::uint8_t>((x & 1) + (x >> 1 & 1) + (x >> 2 & 1) + (x >> 3));
      }
    }
  }
};
constexpr Tables kTables;

// A byte a nibble: where its table begins.
void stage(const std::int32_t* words, int count, std::uint8_t* staged) {
  const __m128i low = _mm_set1_epi8(0x0f);
  for (int i = 0; i < count; ++i, staged += kNibbles) {
    const __m128i bytes = _mm_cvtsi32_si128(words[i]);
    const __m128i shifted_up = _mm_andnot_si128(low, _mm_slli_epi16(bytes, 4));
    const __m128i upper = _mm_andnot_si128(low, bytes);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(staged), _mm_unpacklo_epi8(shifted_up, upper));
  }
}

int word_count(const Run* runs, int run_count) {
  int words = 0;
  for (int r = 0; r < run_count; ++r) words += runs[r].words;
  return words;
}

// Filters of a few words stand there as they are looked up. More would not stay in the nearest cache.
constexpr int kMostNibbleWords = 36;

// [word][nibble][channel], a byte each, or [word][byte][channel].
void pack_nibbles(const std::int32_t* const* filters, const std::vector<Run>& runs, std::vector<std::uint8_t>& packed) {
  const int words = word_count(runs.data(), static_cast<int>(runs.size()));
  for (int nibble = 0; nibble < kNibbles * words; ++nibble) {
    for (int channel = 0; channel < kTileChannels; ++channel) {
      const auto bits = filters[channel] ? static_cast<std::uint32_t>(filters[channel][nibble / kNibbles]) : 0U;
      packed.push_back(static_cast<std::uint8_t>(bits >> 4 * (nibble % kNibbles) & 0xf));
    }
  }
}

void pack(const std::int32_t* const* filters, const std::vector<Run>& runs, std::vector<std::uint8_t>& packed) {
  const bool are_few = word_count(runs.data(), static_cast<int>(runs.size())) <= kMostNibbleWords;
  (are_few ? pack_nibbles : loop_pack_bytes)(filters, runs, packed);
}

inline __m256i table_at(std::uint8_t offset) {
  const auto* table = reinterpret_cast<const std::uint8_t*>(kTables.differing) + offset;
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

// In assembly, since compilers add look-ups to each other first and then run out of registers.
inline void add_look_up(__m256i& sum, __m256i table, __m256i nibbles) {
  __m256i found;
  asm("vpshufb %3, %2, %1\n\tvpaddb %1, %0, %0" : "+x"(sum), "=&x"(found) : "x"(table), "x"(nibbles));
}

template <int Vectors>
inline void add_look_up(__m256i& a, __m256i& b, __m256i table, __m256i a_nibbles, __m256i b_nibbles) {
  add_look_up(a, table, a_nibbles);
  if (Vectors == 2) add_look_up(b, table, b_nibbles);
}

inline void flush(std::uint16_t* counts, __m256i bytes, bool first) {
  auto* to = reinterpret_cast<__m256i*>(counts);
  __m256i low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes));
  __m256i high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(bytes, 1));
  if (!first) {
    low = _mm256_add_epi16(low, _mm256_load_si256(to));
    high = _mm256_add_epi16(high, _mm256_load_si256(to + 1));
  }
  _mm256_store_si256(to, low);
  _mm256_store_si256(to + 1, high);
}

template <int Vectors>
inline void flush(std::uint16_t* counts, __m256i a, __m256i b, bool first) {
  flush(counts, a, first);
  if (Vectors == 2) flush(counts + kLane, b, first);
}

template <int Vectors, bool AreNibbles>
void count_packed(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                   std::uint16_t* counts) {
  const __m256i low_nibble = _mm256_set1_epi8(0x0f);
  bool first = true;
  for (int r = 0; r < run_count; ++r) {
    const std::uint8_t* p0 = pixels[0] + runs[r].offset;
    const std::uint8_t* p1 = pixels[1] + runs[r].offset;
    const std::uint8_t* p2 = pixels[2] + runs[r].offset;
    const std::uint8_t* p3 = pixels[3] + runs[r].offset;
    for (int left = runs[r].words; left > 0;) {
      const int words = std::min(left, kWordsBeforeFlush);
      left -= words;
      // Two vectors of sums a pixel. Plain variables: arrays would live on the stack.
      const __m256i zero = _mm256_setzero_si256();
      __m256i a0 = zero, b0 = zero, a1 = zero, b1 = zero, a2 = zero, b2 = zero, a3 = zero, b3 = zero;
      for (const std::uint8_t* const end = p0 + words * kNibbles; p0 < end; p0 += 2, p1 += 2, p2 += 2, p3 += 2) {
        for (int i = 0; i < 2; ++i) {
          const auto* filters = reinterpret_cast<const __m256i*>(packed);
          __m256i a = _mm256_load_si256(filters), b = Vectors == 2 ? _mm256_load_si256(filters + 1) : zero;
          if (!AreNibbles) {
            a = _mm256_and_si256(i == 0 ? a : _mm256_srli_epi16(a, 4), low_nibble);
            b = _mm256_and_si256(i == 0 ? b : _mm256_srli_epi16(b, 4), low_nibble);
          }
          if (AreNibbles || i == 1) packed += kTileChannels;
          add_look_up<Vectors>(a0, b0, table_at(p0[i]), a, b);
          add_look_up<Vectors>(a1, b1, table_at(p1[i]), a, b);
          add_look_up<Vectors>(a2, b2, table_at(p2[i]), a, b);
          add_look_up<Vectors>(a3, b3, table_at(p3[i]), a, b);
        }
      }
      flush<Vectors>(counts, a0, b0, first);
      flush<Vectors>(counts + kTileChannels, a1, b1, first);
      flush<Vectors>(counts + 2 * kTileChannels, a2, b2, first);
      flush<Vectors>(counts + 3 * kTileChannels, a3, b3, first);
      first = false;
    }
  }
}

template <int Vectors>
void count_vectors(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                   std::uint16_t* counts) {
  const bool are_few = word_count(runs, run_count) <= kMostNibbleWords;
  const auto count_all = are_few ? count_packed<Vectors, true> : count_packed<Vectors, false>;
  count_all(pixels, runs, run_count, packed, counts);
}

void count(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed, int channels,
           std::uint16_t* counts) {
  if (channels > kLane) {
    count_vectors<2>(pixels, runs, run_count, packed, counts);
  } else {
    count_vectors<1>(pixels, runs, run_count, packed, counts);
  }
}

// Input of four bits: sixteen sums for each four channels, one for each choice of them.
constexpr int kLevelTable = kLevels;
constexpr int kLookUpsBeforeFlush = 4;  // a look-up adds 4 * 15 at most to a byte
static_assert(kLookUpsBeforeFlush * 4 * (kLevels - 1) <= 255);

std::int32_t stage_levels(const std::int8_t* values, int count, std::int8_t zero, std::uint8_t* staged) {
  // Which of eight levels, and of eight bytes with the sums of pairs, stand in the tables of four channels for their places'
  // lower two bits, and for the upper two.
  constexpr char kNone = -128;
  const __m128i lower = _mm_setr_epi8(kNone, 0, 1, 8, kNone, 0, 1, 8, kNone, 0, 1, 8, kNone, 0, 1, 8);
  const __m128i upper = _mm_setr_epi8(kNone, kNone, kNone, kNone, 2, 2, 2, 2, 3, 3, 3, 3, 10, 10, 10, 10);
  const __m128i next = _mm_set1_epi8(4);
  const __m256i low = _mm256_set_m128i(_mm_add_epi8(lower, next), lower);
  const __m256i high = _mm256_set_m128i(_mm_add_epi8(upper, next), upper);
  const __m128i least = _mm_set1_epi8(zero);
  __m128i total = _mm_setzero_si128();
  for (int i = 0; i < count; i += 16, staged += 4 * kLevelTable) {
    const __m128i levels = _mm_sub_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values + i)), least);
    total = _mm_add_epi32(total, _mm_sad_epu8(levels, _mm_setzero_si128()));
    const __m128i pairs = _mm_add_epi8(levels, _mm_srli_epi16(levels, 8));  // in even bytes
    const auto store_tables = [&](int place, __m128i eight) {
      const __m256i both = _mm256_broadcastsi128_si256(eight);
      const __m256i sums = _mm256_add_epi8(_mm256_shuffle_epi8(both, low), _mm256_shuffle_epi8(both, high));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(staged) + place, sums);
    };
    store_tables(0, _mm_unpacklo_epi64(levels, pairs));
    store_tables(1, _mm_unpackhi_epi64(levels, pairs));
  }
  return _mm_cvtsi128_si32(total) + _mm_extract_epi32(total, 2);
}

inline __m256i staged_table(const std::uint8_t* staged) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(staged)));
}

// Four look-ups of a pixel, widened: odd channels grow apart, and those of `both` are to be taken off even ones' upper
// halves in the end.
inline void add_level_look_ups(__m256i& both, __m256i& odd, const std::uint8_t* tables, __m256i a_low, __m256i a_high,
                               __m256i b_low, __m256i b_high) {
  __m256i sum = _mm256_shuffle_epi8(staged_table(tables), a_low);
  add_look_up(sum, staged_table(tables + kLevelTable), a_high);
  add_look_up(sum, staged_table(tables + 2 * kLevelTable), b_low);
  add_look_up(sum, staged_table(tables + 3 * kLevelTable), b_high);
  both = _mm256_add_epi16(both, sum);
  odd = _mm256_add_epi16(odd, _mm256_srli_epi16(sum, 8));
}

inline void store_interleaved(std::uint16_t* counts, __m256i both, __m256i odd) {
  const __m256i even = _mm256_sub_epi16(both, _mm256_slli_epi16(odd, 8));
  const __m256i low = _mm256_unpacklo_epi16(even, odd), high = _mm256_unpackhi_epi16(even, odd);
  auto* to = reinterpret_cast<__m256i*>(counts);
  _mm256_store_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_store_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
}

void count_levels(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                  int channels, std::uint16_t* counts) {
  const __m256i zero = _mm256_setzero_si256();
  for (int first = 0; first < channels; first += kLane) {
    const std::uint8_t* filters = packed + first;
    __m256i both0 = zero, both1 = zero, both2 = zero, both3 = zero, odd0 = zero, odd1 = zero, odd2 = zero, odd3 = zero;
    for (int r = 0; r < run_count; ++r) {
      const std::uint8_t* p0 = pixels[0] + runs[r].offset;
      const std::uint8_t* p1 = pixels[1] + runs[r].offset;
      const std::uint8_t* p2 = pixels[2] + runs[r].offset;
      const std::uint8_t* p3 = pixels[3] + runs[r].offset;
      for (int half_word = 0; half_word < 2 * runs[r].words; ++half_word, filters += 4 * kTileChannels) {
        const auto nibbles = [&](int i) {
          return _mm256_load_si256(reinterpret_cast<const __m256i*>(filters + i * kTileChannels));
        };
        const __m256i a_low = nibbles(0), a_high = nibbles(1), b_low = nibbles(2), b_high = nibbles(3);
        add_level_look_ups(both0, odd0, p0, a_low, a_high, b_low, b_high);
        add_level_look_ups(both1, odd1, p1, a_low, a_high, b_low, b_high);
        add_level_look_ups(both2, odd2, p2, a_low, a_high, b_low, b_high);
        add_level_look_ups(both3, odd3, p3, a_low, a_high, b_low, b_high);
        const int step = kLookUpsBeforeFlush * kLevelTable;
        p0 += step, p1 += step, p2 += step, p3 += step;
      }
    }
    store_interleaved(counts + first, both0, odd0);
    store_interleaved(counts + kTileChannels + first, both1, odd1);
    store_interleaved(counts + 2 * kTileChannels + first, both2, odd2);
    store_interleaved(counts + 3 * kTileChannels + first, both3, odd3);
  }
}

inline __m256i pair_at(const std::uint8_t* staged) {
  std::int32_t pair;
  std::memcpy(&pair, staged, sizeof(pair));
  return _mm256_set1_epi32(pair);
}

inline __m256i add_products(__m256i sum, __m256i values, __m256i weights) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(values, weights));
}

void sum_products(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                  int channels, const std::int32_t* bias, std::int32_t* sums) {
  constexpr int kPairBytes = 4;
  const std::uint8_t *p0 = pixels[0], *p1 = pixels[1], *p2 = pixels[2], *p3 = pixels[3];
  for (int first = 0; first < channels; first += 16) {
    const std::uint8_t* weight = packed + kPairBytes * first;
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bias + first));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bias + first + 8));
    __m256i a0 = low, a1 = low, a2 = low, a3 = low, b0 = high, b1 = high, b2 = high, b3 = high;
    for (int r = 0; r < run_count; ++r) {
      std::ptrdiff_t at = runs[r].offset;
      for (int left = runs[r].words; left > 0; left -= 2, at += kPairBytes, weight += kPairBytes * kTileChannels) {
        const __m256i a = _mm256_load_si256(reinterpret_cast<const __m256i*>(weight));
        const __m256i b = _mm256_load_si256(reinterpret_cast<const __m256i*>(weight) + 1);
        const __m256i w0 = pair_at(p0 + at), w1 = pair_at(p1 + at), w2 = pair_at(p2 + at), w3 = pair_at(p3 + at);
        a0 = add_products(a0, w0, a), b0 = add_products(b0, w0, b);
        a1 = add_products(a1, w1, a), b1 = add_products(b1, w1, b);
        a2 = add_products(a2, w2, a), b2 = add_products(b2, w2, b);
        a3 = add_products(a3, w3, a), b3 = add_products(b3, w3, b);
      }
    }
    const auto store = [&](int pixel, __m256i a, __m256i b) {
      auto* row = reinterpret_cast<__m256i*>(sums + pixel * kTileChannels + first);
      _mm256_storeu_si256(row, a);
      _mm256_storeu_si256(row + 1, b);
    };
    store(0, a0, b0), store(1, a1, b1), store(2, a2, b2), store(3, a3, b3);
  }
}

// Of each 64 bits, in the place of the lower ones.
inline __m256i upper_halves(__m256i values) { return _mm256_shuffle_epi32(values, 0xf5); }

#if BINVPR_HAS_AVX_VNNI
// Dot products are of unsigned values with signed ones.
constexpr std::int32_t kValueOffset = 128;

void stage_offset_values(const std::int8_t* values, int count, std::uint8_t* staged) {
  for (int i = 0; i < count; ++i) staged[i] = static_cast<std::uint8_t>(values[i] + kValueOffset);
}

__attribute__((target("avx2,avxvnni"))) void sum_quad_products(const std::uint8_t* const* pixels, const Run* runs,
                                                            int run_count, const std::uint8_t* packed, int channels,
                                                            const std::int32_t* bias, std::int32_t* sums) {
  for (int first = 0; first < channels; first += 16) {
    const std::uint8_t* weight = packed + 4 * first;
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bias + first));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bias + first + 8));
    __m256i of[kTilePixels][2] = {{low, high}, {low, high}, {low, high}, {low, high}};
    for (int r = 0; r < run_count; ++r) {
      std::ptrdiff_t at = runs[r].offset;
      for (int left = runs[r].words; left > 0; left -= 4, at += 4, weight += 4 * kTileChannels) {
        const __m256i a = _mm256_load_si256(reinterpret_cast<const __m256i*>(weight));
        const __m256i b = _mm256_load_si256(reinterpret_cast<const __m256i*>(weight) + 1);
        for (int pixel = 0; pixel < kTilePixels; ++pixel) {
          std::int32_t quad;
          std::memcpy(&quad, pixels[pixel] + at, sizeof(quad));
          const __m256i values = _mm256_set1_epi32(quad);
          of[pixel][0] = _mm256_dpbusd_avx_epi32(of[pixel][0], values, a);
          of[pixel][1] = _mm256_dpbusd_avx_epi32(of[pixel][1], values, b);
        }
      }
    }
    for (int pixel = 0; pixel < kTilePixels; ++pixel) {
      auto* row = reinterpret_cast<__m256i*>(sums + pixel * kTileChannels + first);
      _mm256_storeu_si256(row, of[pixel][0]);
      _mm256_storeu_si256(row + 1, of[pixel][1]);
    }
  }
}
#endif

// Eight channels from `first` on, as loop_requantize_from, but for the zero point and the bounds.
inline __m256i scaled(const std::int32_t* sums, const Requantization& to, int first) {
  const auto load = [first](const std::int32_t* values) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + first));
  };
  const __m256i nudge = _mm256_set1_epi64x(std::int64_t{1} << 31);
  // Of twice the sums, so that what is wanted of a product is its upper half.
  const __m256i sum = load(sums), doubled = _mm256_add_epi32(sum, sum), factor = load(to.multipliers);
  const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(doubled, factor), nudge);
  const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(upper_halves(doubled), upper_halves(factor)), nudge);
  const __m256i high = _mm256_blend_epi32(upper_halves(even), odd, 0xaa);
  return _mm256_srav_epi32(_mm256_add_epi32(high, load(to.halves)), load(to.shifts));
}

void requantize(const std::int32_t* sums, const Requantization& to, const Int8Tile& tile) {
  const __m256i zero_point = _mm256_set1_epi16(static_cast<std::int16_t>(to.zero_point));
  const __m256i min = _mm256_set1_epi8(static_cast<char>(to.min)), max = _mm256_set1_epi8(static_cast<char>(to.max));
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  std::int8_t* values = tile.values;
  for (int pixel = 0; pixel < tile.pixels; ++pixel, sums += kTileChannels, values += tile.stride) {
    for (int i = 0; i < tile.channels; i += kLane) {
      const auto sixteen = [&](int first) {
        const __m256i packed = _mm256_packs_epi32(scaled(sums, to, first), scaled(sums, to, first + 8));
        return _mm256_adds_epi16(packed, zero_point);
      };
      const __m256i bytes = _mm256_packs_epi16(sixteen(i), sixteen(i + 16));
      const __m256i bounded = _mm256_max_epi8(min, _mm256_min_epi8(max, _mm256_permutevar8x32_epi32(bytes, in_order)));
      if (tile.channels - i >= kLane) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + i), bounded);
      } else {
        alignas(32) std::int8_t some[kLane];
        _mm256_store_si256(reinterpret_cast<__m256i*>(some), bounded);
        std::memcpy(values + i, some, static_cast<std::size_t>(tile.channels - i));
      }
    }
  }
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

#if BINVPR_HAS_AVX_VNNI
void multiply_quads(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                    const std::int32_t* bias, const Requantization& to, const Int8Tile& tile) {
  loop_multiply(pixels, runs, run_count, packed, bias, to, tile, sum_quad_products, requantize);
}
#endif

std::uint64_t reach(const std::uint16_t* counts, const std::uint16_t* thresholds) {
  std::uint64_t bits = 0;
  for (int half = 0; half < 2; ++half) {
    __m256i reached[2];
    for (int i = 0; i < 2; ++i) {
      const auto* count16 = reinterpret_cast<const __m256i*>(counts) + half * 2 + i;
      const auto* threshold16 = reinterpret_cast<const __m256i*>(thresholds) + half * 2 + i;
      const __m256i value = _mm256_load_si256(count16);
      reached[i] = _mm256_cmpeq_epi16(_mm256_max_epu16(value, _mm256_loadu_si256(threshold16)), value);
    }
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(reached[0], reached[1]), 0xd8);
    bits |= static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm256_movemask_epi8(bytes))) << 32 * half;
  }
  return bits;
}

void pack_float(const float* values, int count, std::int32_t* words) {
  const __m256 least = _mm256_set1_ps(kNegative);
  for (; count >= kWordBits; count -= kWordBits, values += kWordBits) {
    unsigned word = 0;
    for (int i = 0; i < 4; ++i) {
      const __m256 negative = _mm256_cmp_ps(_mm256_loadu_ps(values + 8 * i), least, _CMP_LE_OQ);
      word |= static_cast<unsigned>(_mm256_movemask_ps(negative)) << 8 * i;
    }
    *words++ = static_cast<std::int32_t>(word);
  }
  loop_pack_float(values, count, words);
}

void quantize(const float* values, std::size_t count, float inverse_scale, int zero_point, std::int8_t* output) {
  const __m256 factor = _mm256_set1_ps(inverse_scale), most = _mm256_set1_ps(1000), least = _mm256_set1_ps(-1000);
  const __m256i zero = _mm256_set1_epi32(zero_point);
  const auto rounded = [&](const float* from) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(from), factor);
    return _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(scaled, most), least)), zero);
  };
  for (; count >= 16; count -= 16, values += 16, output += 16) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(rounded(values), rounded(values + 8)), 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(output), bytes);
  }
  loop_quantize(values, count, inverse_scale, zero_point, output);
}

void pack_int8(const std::int8_t* values, int count, std::int8_t zero_point, std::int32_t* words) {
  const __m256i zero = _mm256_set1_epi8(zero_point);
  for (; count >= kWordBits; count -= kWordBits, values += kWordBits) {
    const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
    *words++ = _mm256_movemask_epi8(_mm256_cmpgt_epi8(zero, value));
  }
  loop_pack_int8(values, count, zero_point, words);
}

void to_float(const std::int32_t* doubled, int channels, const RealTransform& transform, const float* shortcut,
              float* values, std::int32_t* packed) {
  const __m256i clamp_max = _mm256_set1_epi32(transform.clamp_max), clamp_min = _mm256_set1_epi32(transform.clamp_min);
  const __m256 least = _mm256_set1_ps(kNegative);
  std::uint64_t bits = 0;
  int i = 0;
  for (; i + 8 <= channels; i += 8) {
    const __m256i sum = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(doubled + i));
    const __m256 clamped = _mm256_cvtepi32_ps(_mm256_max_epi32(_mm256_min_epi32(sum, clamp_max), clamp_min));
    __m256 value = _mm256_add_ps(_mm256_mul_ps(clamped, _mm256_loadu_ps(transform.multiplier + i)),
                                 _mm256_loadu_ps(transform.bias + i));
    if (shortcut != nullptr) value = _mm256_add_ps(value, _mm256_loadu_ps(shortcut + i));
    _mm256_storeu_ps(values + i, value);
    const auto negative = static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(value, least, _CMP_LE_OQ)));
    bits |= static_cast<std::uint64_t>(negative) << i;
  }
  if (i == channels) {
    for (int word = 0; packed != nullptr && word < words_for(channels); ++word, bits >>= kWordBits) {
      packed[word] = static_cast<std::int32_t>(static_cast<std::uint32_t>(bits));
    }
    return;
  }
  const RealTransform rest{transform.clamps, transform.clamp_min, transform.clamp_max, transform.multiplier + i, transform.bias + i};
  loop_to_float(doubled + i, channels - i, rest, shortcut == nullptr ? nullptr : shortcut + i, values + i, nullptr, pack_float);
  if (packed != nullptr) pack_float(values, channels, packed);
}

// Of a whole pixel that nothing clamps.
template <bool HasShortcut>
inline void counts_to_float(const std::uint16_t* counts, const RealTransform& transform, const float* shortcut,
                            float* values, std::int32_t* signs) {
  const __m256 least = _mm256_set1_ps(kNegative);
  std::uint32_t words[kTileChannels / kWordBits] = {};
  for (int i = 0; i < kTileChannels; i += 8) {
    const __m256i count = _mm256_cvtepu16_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(counts + i)));
    const __m256 doubled = _mm256_cvtepi32_ps(_mm256_slli_epi32(count, 1));
    __m256 value = _mm256_add_ps(_mm256_mul_ps(doubled, _mm256_loadu_ps(transform.multiplier + i)),
                                 _mm256_loadu_ps(transform.bias + i));
    if (HasShortcut) value = _mm256_add_ps(value, _mm256_loadu_ps(shortcut + i));
    _mm256_storeu_ps(values + i, value);
    const auto negative = static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(value, least, _CMP_LE_OQ)));
    words[i / kWordBits] |= negative << i % kWordBits;
  }
  if (signs != nullptr) std::memcpy(signs, words, sizeof(words));
}

void count_to_float(const std::uint8_t* const* pixels, const Run* runs, int run_count, const std::uint8_t* packed,
                    const RealTransform& transform, const FloatTile& tile) {
  if (tile.channels < kTileChannels || transform.clamps) {
    return loop_count_to_float(pixels, runs, run_count, packed, transform, tile, count, to_float);
  }
  alignas(64) std::uint16_t counts[kTilePixels * kTileChannels];
  count_vectors<2>(pixels, runs, run_count, packed, counts);
  const auto to_floats = tile.shortcut != nullptr ? counts_to_float<true> : counts_to_float<false>;
  for (std::size_t i = 0; i < static_cast<std::size_t>(tile.pixels); ++i) {
    to_floats(counts + i * kTileChannels, transform, tile.shortcut == nullptr ? nullptr : tile.shortcut + i * tile.shortcut_stride,
              tile.values + i * tile.stride, tile.signs == nullptr ? nullptr : tile.signs + i * tile.signs_stride);
  }
}

void nearest(const std::uint8_t* const* rows, const PackedColumns& columns, int first, std::uint16_t* keys,
             Nearest* found) {
  loop_nearest(rows, columns, first, keys, found, count);
}

double peak(long rounds) {
  __m256i table = _mm256_set1_epi8(3), nibbles = _mm256_set1_epi8(5);
  __m256i a = table, b = table, c = table, d = table, e = table, f = table, g = table, h = table;
  for (long i = 0; i < rounds; ++i) {
    asm volatile("" : "+x"(table), "+x"(nibbles));
    add_look_up<2>(a, b, table, nibbles, nibbles);
    add_look_up<2>(c, d, table, nibbles, nibbles);
    add_look_up<2>(e, f, table, nibbles, nibbles);
    add_look_up<2>(g, h, table, nibbles, nibbles);
  }
  asm volatile("" ::"x"(a), "x"(b), "x"(c), "x"(d), "x"(e), "x"(f), "x"(g), "x"(h));
  return 8.0 * kLane * 4 * static_cast<double>(rounds);
}

}  // namespace

const QuantizedKernel kQuantized = {
    kNibbles * kLevelTable, stage_levels, pack_nibbles, count_levels, loop_combine,
    2, 0, loop_stage_pairs, loop_pack_pairs, requantize, count_to_int8, multiply,
};

#if BINVPR_HAS_AVX_VNNI
const QuantizedKernel kDotQuantized = {
    kNibbles * kLevelTable, stage_levels, pack_nibbles, count_levels, loop_combine,
    1, kValueOffset, stage_offset_values, loop_pack_quads, requantize, count_to_int8, multiply_quads,
};
#endif

const DecodingKernel kAvx2Decoding = kDecodingLoops;

#if BINVPR_HAS_AVX_VNNI
const Kernel kAvxVnniKernel = {
    "avx-vnni", kDotQuantized, [] { return kAvx2Kernel.runs_here() && __builtin_cpu_supports("avxvnni"); }, kNibbles, stage, pack, count,
    reach, loop_add_doubled, to_float, loop_to_int8, count_to_float, quantize, pack_float, pack_int8, loop_hamming, nearest, kAvx2Decoding, peak,
};
#endif

const Kernel kAvx2Kernel = {
    "avx2", kQuantized, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }, kNibbles, stage, pack, count,
    reach, loop_add_doubled, to_float, loop_to_int8, count_to_float, quantize, pack_float, pack_int8, loop_hamming, nearest, kAvx2Decoding, peak,
};

}  // namespace binvpr

BINVPR_TARGET_END
#endif
