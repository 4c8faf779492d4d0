// SPDX-License-Identifier: Apache-2.0
#if !defined(__clang__)  // GCC 12 warns of its own headers
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "target.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace binvpr {
namespace {

constexpr std::size_t kChannels = 3;
constexpr std::size_t kLanes = 4;        // a pixel's channels, and one that is not used
constexpr double kLeastPart = 1e-3;      // of a source pixel, below which it is left out
constexpr float kRound = 12582912.0F;    // added and taken off, it rounds what is below 2^22, halves to even numbers

// A source pixel, or row, that a pixel covers, and its share of that.
struct Tap {
  std::size_t source;
  float share;
};

// What each pixel of a row, or each row, covers.
class Taps {
 public:
  Taps(std::size_t sources, std::size_t targets) : ends_(targets) {
    const double scale = static_cast<double>(sources) / static_cast<double>(targets);
    for (std::size_t i = 0; i < targets; ++i) {
      const double start = static_cast<double>(i) * scale, end = start + scale;
      const double covered = std::min(scale, static_cast<double>(sources) - start);
      const auto last = std::min(static_cast<std::size_t>(end), sources - 1);
      const auto first = std::min(static_cast<std::size_t>(std::ceil(start)), last);
      if (const double part = static_cast<double>(first) - start; part > kLeastPart) add(first - 1, part / covered);
      for (std::size_t whole = first; whole < last; ++whole) add(whole, 1 / covered);
      if (const double part = end - static_cast<double>(last); part > kLeastPart) {
        add(last, std::min({part, 1.0, covered}) / covered);
      }
      ends_[i] = taps_.size();
    }
  }

  const Tap* begin(std::size_t i) const { return taps_.data() + (i == 0 ? 0 : ends_[i - 1]); }
  const Tap* end(std::size_t i) const { return taps_.data() + ends_[i]; }

 private:
  void add(std::size_t source, double share) { taps_.push_back({source, static_cast<float>(share)}); }

  std::vector<Tap> taps_;
  std::vector<std::size_t> ends_;
};

namespace portable {

constexpr std::size_t kRows = 1;
typedef float Floats __attribute__((vector_size(16)));

inline Floats widened(const std::uint32_t* pixels) {
  const std::uint32_t pixel = *pixels;
  return Floats{static_cast<float>(pixel & 255), static_cast<float>(pixel >> 8 & 255), static_cast<float>(pixel >> 16 & 255),
                static_cast<float>(pixel >> 24)};
}

#include "resize_loops.h"

}  // namespace portable

#if defined(__x86_64__)
BINVPR_TARGET_BEGIN("avx2")
namespace avx2 {

constexpr std::size_t kRows = 2;
typedef __m256 Floats;

inline Floats widened(const std::uint32_t* pixels) {
  const __m128i bytes = _mm_insert_epi32(_mm_cvtsi32_si128(static_cast<int>(pixels[0])), static_cast<int>(pixels[1]), 1);
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}

#include "resize_loops.h"

}  // namespace avx2
BINVPR_TARGET_END

BINVPR_TARGET_BEGIN("avx512f,avx512bw")
namespace avx512 {

constexpr std::size_t kRows = 4;
typedef __m512 Floats;

inline Floats widened(const std::uint32_t* pixels) {
  const __m128i bytes = _mm_set_epi32(static_cast<int>(pixels[3]), static_cast<int>(pixels[2]), static_cast<int>(pixels[1]),
                                      static_cast<int>(pixels[0]));
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

#include "resize_loops.h"

}  // namespace avx512
BINVPR_TARGET_END
#endif

}  // namespace

void shrink(const RgbImage& image, std::size_t height, std::size_t width, std::uint8_t* to) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) return avx512::shrink(image, height, width, to);
  if (__builtin_cpu_supports("avx2")) return avx2::shrink(image, height, width, to);
#endif
  portable::shrink(image, height, width, to);
}

}  // namespace binvpr
