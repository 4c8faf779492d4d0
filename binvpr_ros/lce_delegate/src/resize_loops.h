// SPDX-License-Identifier: Apache-2.0
// The loops of resize.cc, once for each kind of processor: it includes them several times, each in a namespace that
// defines kRows (source rows that are summed across at a time), Floats (kRows * kLanes of them) and widened().

// A pixel of each row: its channels, in the order of the rows.
inline Floats load(const std::uint8_t* const* rows, std::size_t pixel, bool is_last) {
  std::uint32_t pixels[kRows];
  for (std::size_t row = 0; row < kRows; ++row) {
    if (is_last) {  // nothing may be read behind it
      std::memcpy(&pixels[row], rows[row] + kChannels * pixel - 1, sizeof pixels[row]);
      pixels[row] >>= 8;
    } else {
      std::memcpy(&pixels[row], rows[row] + kChannels * pixel, sizeof pixels[row]);
    }
  }
  return widened(pixels);
}

// Sums kRows rows across, into rows of `stride` floats.
inline void across(const Taps& taps, const std::uint8_t* const* rows, std::size_t last, std::size_t width,
                   std::size_t stride, float* sums) {
  for (std::size_t x = 0; x < width; ++x) {
    Floats sum = {};
    for (const Tap* tap = taps.begin(x); tap != taps.end(x); ++tap) {
      sum += load(rows, tap->source, tap->source == last) * tap->share;
    }
    for (std::size_t row = 0; row < kRows; ++row) {  // the lane too many is written over by the next pixel
      std::memcpy(sums + row * stride + kChannels * x, reinterpret_cast<const float*>(&sum) + kLanes * row,
                  kLanes * sizeof(float));
    }
  }
}

inline void shrink(const RgbImage& image, std::size_t height, std::size_t width, std::uint8_t* to) {
  const Taps columns(image.width, width), lines(image.height, height);
  const std::size_t count = kChannels * width, stride = count + kLanes - kChannels;
  std::vector<float> sums(kRows * stride), line(count);
  std::size_t summed = 0;  // rows from the first one on
  for (std::size_t y = 0; y < height; ++y) {
    for (const Tap* tap = lines.begin(y); tap != lines.end(y); ++tap) {
      if (tap->source >= summed) {
        summed = tap->source / kRows * kRows;
        const std::uint8_t* rows[kRows];
        for (std::size_t row = 0; row < kRows; ++row) {
          rows[row] = image.pixels + std::min(summed + row, image.height - 1) * image.stride;
        }
        across(columns, rows, image.width - 1, width, stride, sums.data());
        summed += kRows;
      }
      const float* row = sums.data() + tap->source % kRows * stride;
      const float share = tap->share;
      if (tap == lines.begin(y)) {
        for (std::size_t i = 0; i < count; ++i) line[i] = share * row[i];
      } else {
        for (std::size_t i = 0; i < count; ++i) line[i] += share * row[i];
      }
    }
    for (std::size_t i = 0; i < count; ++i) {
      to[y * count + i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(line[i] + kRound - kRound));
    }
  }
}
