// SPDX-License-Identifier: Apache-2.0
// Makes images smaller by area: each pixel is the mean of what it covers, with the shares of pixels at its edge.
#pragma once

#include <cstddef>
#include <cstdint>

namespace binvpr {

// An RGB image, whose rows are `stride` bytes apart.
struct RgbImage {
  const std::uint8_t* pixels;
  std::size_t height, width, stride;
};

// Writes the image `to` of `height` x `width` pixels, each no larger than that of `image`, which is at least two pixels
// wide. The sums are of float32, across and then down, in the order of OpenCV's INTER_AREA, so that the pixels are its own
// where it does not fuse multiplications and additions; and they are the same on every processor.
void shrink(const RgbImage& image, std::size_t height, std::size_t width, std::uint8_t* to);

}  // namespace binvpr
