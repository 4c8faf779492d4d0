// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "operator.h"

namespace binvpr {

// What convolutions with binary filters have in common: where windows lie in the staged input, how filters are packed
// into blocks of a tile, and how tiles are shared among threads.
//
// The input is staged, that is, copied with its padding into the form that the kernel counts in: then every window lies
// inside, and a filter row is one run of memory. Counts of a tile are uint16, so that long windows are cut into chunks.
class TiledConvolution : public Operator {
 protected:
  // Up to kTileChannels output channels of one group, with their filters.
  struct Block {
    int group;
    int first_channel;
    int channels;
    std::vector<std::size_t> filters;  // where the packed filters of each chunk begin
  };

  // Runs that are counted together.
  struct Chunk {
    int first_run;
    int run_count;
  };

  struct Geometry {
    int stride_height, stride_width, dilation_height, dilation_width;
    bool same_padding;
    int filter_height, filter_width;
    int channels_out, groups;
    int pixel_words;   // packed input channels of a pixel, all groups
    int staged_bytes;  // of a word
    int chunk_words;   // the longest chunk
  };

  void set_geometry(const Geometry& geometry) { geometry_ = geometry; }
  const Geometry& geometry() const { return geometry_; }

  // For an input [N,H,W,C] gives the output's size; memory for the staged input is then there, zero.
  Dims set_input_size(const Dims& input);

  // `filters` [channels_out][filter_height][filter_width][words of a group]. After set_input_size().
  using Pack = decltype(Kernel::pack);
  void pack_filters(Pack pack, const std::int32_t* filters);
  bool filters_are_packed() const { return !blocks_.empty(); }

  // Calls stage(image, row, first pixel's staged bytes, pixels) for each row of the input that windows see.
  template <typename Stage>
  void for_each_input_row(Stage stage) const;

  // Calls work(block, first pixel of a tile) for all tiles and blocks, from several threads.
  // Without `blocks_apart` a thread takes all blocks of its tiles, in order.
  template <typename Work>
  void for_each_tile(ThreadPool& pool, bool blocks_apart, Work work) const;

  // Counts one chunk of a tile.
  using Count = decltype(Kernel::count);
  void count_tile(Count count, std::size_t chunk, const Block& block, int first_pixel, std::uint16_t* counts) const;
  int pixels() const { return pixels_; }  // of the output
  int pixels_of_tile(int first_pixel) const { return std::min(kTilePixels, pixels_ - first_pixel); }

  int group_words() const { return geometry_.pixel_words / geometry_.groups; }
  const Axis& rows() const { return axes_[0]; }
  const Axis& columns() const { return axes_[1]; }
  int batch() const { return batch_; }
  std::size_t chunk_count() const { return chunks_.size(); }
  const std::vector<Block>& blocks() const { return blocks_; }
  std::size_t index_of(const Block& block) const { return static_cast<std::size_t>(&block - blocks_.data()); }

 private:
  static constexpr int kTilesPerPiece = 8;  // of work for a thread: some ten microseconds

  void lay_out_runs();

  Geometry geometry_{};
  std::vector<Axis> axes_;  // height, width
  int batch_ = 0;
  int pixels_ = 0;  // of the output
  std::vector<Run> runs_;
  std::vector<Chunk> chunks_;
  std::vector<Block> blocks_;
  std::vector<std::ptrdiff_t> pixel_offsets_;  // of each output pixel's window in the staged input
  AlignedBuffer packed_filters_;
  AlignedBuffer staged_;
};

template <typename Stage>
void TiledConvolution::for_each_input_row(Stage stage) const {
  const Axis &y = axes_[0], &x = axes_[1];
  const std::size_t pixel_bytes =
      static_cast<std::size_t>(geometry_.pixel_words) * static_cast<std::size_t>(geometry_.staged_bytes);
  // VALID windows may leave the last rows and columns unread.
  const int rows = std::min(y.input, y.covered() - y.padding);
  const int columns = std::min(x.input, x.covered() - x.padding);
  for (int image = 0; image < batch_; ++image) {
    for (int row = 0; row < rows; ++row) {
      const std::size_t line = static_cast<std::size_t>(image) * static_cast<std::size_t>(y.covered()) +
                               static_cast<std::size_t>(row + y.padding);
      const std::size_t pixel = line * static_cast<std::size_t>(x.covered()) + static_cast<std::size_t>(x.padding);
      stage(image, row, staged_.data() + pixel * pixel_bytes, columns);
    }
  }
}

template <typename Work>
void TiledConvolution::for_each_tile(ThreadPool& pool, bool blocks_apart, Work work) const {
  const int tiles = (pixels_ + kTilePixels - 1) / kTilePixels;
  const int ranges = (tiles + kTilesPerPiece - 1) / kTilesPerPiece;
  const int block_count = static_cast<int>(blocks_.size());
  pool.run(blocks_apart ? ranges * block_count : ranges, [&](int piece) {
    const int first_tile = piece % ranges * kTilesPerPiece;
    const int last_tile = std::min(first_tile + kTilesPerPiece, tiles);
    for (int tile = first_tile; tile < last_tile; ++tile) {
      const int first_block = blocks_apart ? piece / ranges : 0;
      const int last_block = blocks_apart ? first_block + 1 : block_count;
      for (int block = first_block; block < last_block; ++block) {
        work(blocks_[static_cast<std::size_t>(block)], tile * kTilePixels);
      }
    }
  });
}

}  // namespace binvpr
