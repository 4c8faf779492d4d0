// SPDX-License-Identifier: Apache-2.0
#include "tiled_convolution.h"

#include <algorithm>

namespace binvpr {

TiledConvolution::Geometry TiledConvolution::geometry_of(const NodeFacts& node) {
  const auto& options = *static_cast<const tflite_abi::ConvParams*>(node.builtin_options);
  const Dims& filter = node.inputs[1].dims;
  Geometry geometry{};
  geometry.stride_height = options.stride_height;
  geometry.stride_width = options.stride_width;
  geometry.dilation_height = options.dilation_height_factor;
  geometry.dilation_width = options.dilation_width_factor;
  geometry.same_padding = options.padding == tflite_abi::kPaddingSame;
  geometry.channels_out = filter[0];
  geometry.filter_height = filter[1];
  geometry.filter_width = filter[2];
  geometry.groups = 1;
  geometry.channels_in = filter[3];
  return geometry;
}

std::int64_t TiledConvolution::work() const {
  const Geometry& g = geometry_;
  return std::int64_t{batch_} * axes_[0].output * axes_[1].output * g.channels_out * g.filter_height * g.filter_width *
         g.channels_in;
}

Dims TiledConvolution::set_input_size(const Dims& input, const std::uint8_t* padding) {
  element_count(input);
  const Geometry& g = geometry_;
  axes_.clear();
  axes_.emplace_back(input[1], g.filter_height, g.stride_height, g.dilation_height, g.same_padding);
  axes_.emplace_back(input[2], g.filter_width, g.stride_width, g.dilation_width, g.same_padding);
  const Axis &y = axes_[0], &x = axes_[1];
  batch_ = input[0];
  const Dims output = {batch_, y.output, x.output, g.channels_out};
  element_count(output);

  const std::size_t word_bytes = static_cast<std::size_t>(g.staged_bytes);
  const std::size_t pixel_bytes = static_cast<std::size_t>(g.pixel_words) * word_bytes;
  const std::size_t row_bytes = static_cast<std::size_t>(x.covered()) * pixel_bytes;
  element_count({y.covered(), x.covered(), static_cast<int>(pixel_bytes)});
  padding_row_.assign(row_bytes, 0);
  for (std::size_t i = 0; padding != nullptr && i < row_bytes; ++i) padding_row_[i] = padding[i % word_bytes];
  const int most_rows = static_cast<int>(std::min<std::size_t>(kBandBytes / row_bytes, INT16_MAX));
  band_rows_ = std::clamp((most_rows - y.covered_by(1)) / y.stride + 1, 1, y.output);
  const int staged_rows = y.covered_by(band_rows_);
  staged_ = AlignedBuffer(row_bytes * static_cast<std::size_t>(staged_rows) + kReadBehind);
  for (int row = 0; row < staged_rows; ++row) {
    std::memcpy(staged_.data() + static_cast<std::size_t>(row) * row_bytes, padding_row_.data(), row_bytes);
  }
  pixel_offsets_.clear();
  for (int row = 0; row < band_rows_; ++row) {
    for (int column = 0; column < x.output; ++column) {
      pixel_offsets_.push_back(static_cast<std::ptrdiff_t>(static_cast<std::size_t>(row * y.stride) * row_bytes +
                                                           static_cast<std::size_t>(column * x.stride) * pixel_bytes));
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
  std::vector<Block> blocks;
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
      blocks.push_back(std::move(block));
    }
  }
  packed_filters_ = AlignedBuffer(packed.size());
  std::memcpy(packed_filters_.data(), packed.data(), packed.size());
  blocks_ = std::move(blocks);  // last: only then are the filters packed, should memory run out on the way
}

}  // namespace binvpr
