// SPDX-License-Identifier: Apache-2.0
#include "tiled_convolution.h"

#include <algorithm>

namespace binvpr {

Dims TiledConvolution::set_input_size(const Dims& input) {
  element_count(input);
  const Geometry& g = geometry_;
  axes_.clear();
  axes_.emplace_back(input[1], g.filter_height, g.stride_height, g.dilation_height, g.same_padding);
  axes_.emplace_back(input[2], g.filter_width, g.stride_width, g.dilation_width, g.same_padding);
  const Axis &y = axes_[0], &x = axes_[1];
  batch_ = input[0];
  const Dims output = {batch_, y.output, x.output, g.channels_out};
  element_count(output);
  pixels_ = batch_ * y.output * x.output;

  const std::size_t pixel_bytes = static_cast<std::size_t>(g.pixel_words) * static_cast<std::size_t>(g.staged_bytes);
  const std::size_t row_bytes = static_cast<std::size_t>(x.covered()) * pixel_bytes;
  const std::size_t image_bytes = static_cast<std::size_t>(y.covered()) * row_bytes;
  element_count({batch_, y.covered(), x.covered(), static_cast<int>(pixel_bytes)});
  staged_ = AlignedBuffer(image_bytes * static_cast<std::size_t>(batch_));
  pixel_offsets_.clear();
  for (int image = 0; image < batch_; ++image) {
    for (int row = 0; row < y.output; ++row) {
      for (int column = 0; column < x.output; ++column) {
        pixel_offsets_.push_back(static_cast<std::ptrdiff_t>(
            static_cast<std::size_t>(image) * image_bytes + static_cast<std::size_t>(row * y.stride) * row_bytes +
            static_cast<std::size_t>(column * x.stride) * pixel_bytes));
      }
    }
  }
  lay_out_runs();
  return output;
}

void TiledConvolution::lay_out_runs() {
  const Geometry& g = geometry_;
  const std::ptrdiff_t word_bytes = g.staged_bytes;
  const std::ptrdiff_t pixel_bytes = g.pixel_words * word_bytes;
  const std::ptrdiff_t row_bytes = axes_[1].covered() * pixel_bytes;
  const bool whole_rows = g.groups == 1 && g.dilation_width == 1;  // the taps of a filter row lie side by side
  const int words = whole_rows ? g.filter_width * group_words() : group_words();
  runs_.clear();
  chunks_.clear();
  int chunk_words = g.chunk_words;
  for (int y = 0; y < g.filter_height; ++y) {
    for (int x = 0; x < (whole_rows ? 1 : g.filter_width); ++x) {
      const std::ptrdiff_t tap = y * g.dilation_height * row_bytes + x * g.dilation_width * pixel_bytes;
      for (int done = 0; done < words;) {
        const int length = std::min(words - done, g.chunk_words);
        if (chunk_words + length > g.chunk_words) {
          chunks_.push_back({static_cast<int>(runs_.size()), 0});
          chunk_words = 0;
        }
        runs_.push_back({tap + done * word_bytes, length});
        ++chunks_.back().run_count;
        chunk_words += length;
        done += length;
      }
    }
  }
}

void TiledConvolution::pack_filters(Pack pack, const std::int32_t* filters) {
  const Geometry& g = geometry_;
  const std::size_t filter_words = static_cast<std::size_t>(g.filter_height) * static_cast<std::size_t>(g.filter_width) *
                                   static_cast<std::size_t>(group_words());
  const int group_channels = g.channels_out / g.groups;
  std::vector<std::uint8_t> packed;
  for (int group = 0; group < g.groups; ++group) {
    for (int first = 0; first < group_channels; first += kTileChannels) {
      Block block{group, group * group_channels + first, std::min(kTileChannels, group_channels - first), {}};
      const std::int32_t* rows[kTileChannels] = {};
      for (int i = 0; i < block.channels; ++i) {
        rows[i] = filters + static_cast<std::size_t>(block.first_channel + i) * filter_words;
      }
      for (const Chunk& chunk : chunks_) {
        const auto begin = runs_.begin() + chunk.first_run;
        const std::vector<Run> runs(begin, begin + chunk.run_count);
        block.filters.push_back(packed.size());
        pack(rows, runs, packed);
        for (int i = 0; i < block.channels; ++i) {
          for (const Run& run : runs) rows[i] += run.words;
        }
      }
      blocks_.push_back(std::move(block));
    }
  }
  packed_filters_ = AlignedBuffer(packed.size());
  std::memcpy(packed_filters_.data(), packed.data(), packed.size());
}

void TiledConvolution::count_tile(Count count, std::size_t chunk, const Block& block, int first_pixel,
                                  std::uint16_t* counts) const {
  const int last = pixels_of_tile(first_pixel) - 1;
  const std::ptrdiff_t group_offset = std::ptrdiff_t{block.group} * group_words() * geometry_.staged_bytes;
  const std::uint8_t* pixels[kTilePixels];
  for (int i = 0; i < kTilePixels; ++i) {
    pixels[i] = staged_.data() + pixel_offsets_[static_cast<std::size_t>(first_pixel + std::min(i, last))] + group_offset;
  }
  count(pixels, &runs_[static_cast<std::size_t>(chunks_[chunk].first_run)], chunks_[chunk].run_count,
        packed_filters_.data() + block.filters[chunk], block.channels, counts);
}

}  // namespace binvpr
