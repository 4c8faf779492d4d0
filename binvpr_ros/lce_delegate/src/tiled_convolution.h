// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "operator.h"

namespace binvpr {

// What convolutions have in common: where windows lie in the staged input, how filters are packed
// into blocks of a tile, and how tiles are shared among threads.
//
// The input is staged, that is, copied with its padding into the form that the kernel counts in: then every window lies
// inside, and a filter row is one run of memory. Output comes in bands of rows, for which so much of the input is staged
// as stays in the cache. Counts of a tile are uint16, so that long windows are cut into chunks.
class TiledConvolution : public Operator {
 public:
  std::int64_t work() const override;

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
    int pixel_words;   // packed input channels of a pixel, all groups; of eight bits, a word is a value
    int staged_bytes;  // of a word
    int chunk_words;   // the longest chunk
    int channels_in;   // of a group
  };

  // Of a CONV_2D; what depends on the kernel is left to fill in.
  static Geometry geometry_of(const NodeFacts& node);
  void set_geometry(const Geometry& geometry) { geometry_ = geometry; }
  const Geometry& geometry() const { return geometry_; }

  // Rows of the output of one image.
  struct Band {
    int image;
    int first_row;
    int first_pixel;  // of the output
    int pixels;
  };

  // Up to kTilePixels output pixels.
  struct Tile {
    int first_pixel;  // of the output
    int in_band;      // of those, its place in the band
    int pixels;
  };

  // For an input [N,H,W,C] gives the output's size; `padding` is what is staged outside of the image, a word.
  Dims set_input_size(const Dims& input, const std::uint8_t* padding = nullptr);

  // `filters` [channels_out][filter_height][filter_width][words of a group]. After set_input_size().
  using Pack = decltype(Kernel::pack);
  void pack_filters(Pack pack, const std::int32_t* filters);
  bool filters_are_packed() const { return !blocks_.empty(); }

  // For each band calls stage(image, row, first pixel's staged bytes, pixels) for each row of the input that its windows
  // see, and then run(band).
  template <typename Stage, typename Run>
  void for_each_band(Stage stage, Run run) const;

  // Calls work(block, tile) for all tiles of a band and all blocks, from several threads. A thread takes all blocks of its
  // tiles, in order; only where `blocks_may_part` and there are fewer tiles than threads could share, blocks are shared too.
  template <typename Work>
  void for_each_tile(const Band& band, ThreadPool& pool, bool blocks_may_part, Work work) const;

  // Calls kernel(pixels, runs, run count, packed filters) with one chunk of a tile.
  template <typename TileKernel>
  void with_tile(std::size_t chunk, const Block& block, const Tile& tile, TileKernel kernel) const;

  // Counts one chunk of a tile.
  using Count = decltype(Kernel::count);
  void count_tile(Count count, std::size_t chunk, const Block& block, const Tile& tile, std::uint16_t* counts) const {
    with_tile(chunk, block, tile, [&](const auto* pixels, const Run* runs, int run_count, const auto* filters) {
      count(pixels, runs, run_count, filters, block.channels, counts);
    });
  }

  int group_words() const { return geometry_.pixel_words / geometry_.groups; }
  const Axis& rows() const { return axes_[0]; }
  const Axis& columns() const { return axes_[1]; }
  std::size_t chunk_count() const { return chunks_.size(); }
  const std::vector<Block>& blocks() const { return blocks_; }
  std::size_t index_of(const Block& block) const { return static_cast<std::size_t>(&block - blocks_.data()); }

 private:
  static constexpr std::size_t kReadBehind = 4;  // bytes behind a run that a kernel may read
  static constexpr std::size_t kBandBytes = 1 << 18;  // of the staged input, or one row's windows
  static constexpr int kTilesPerPiece = 8;  // of work for a thread: some ten microseconds

  void lay_out_runs();

  Geometry geometry_{};
  std::vector<Axis> axes_;  // height, width
  int batch_ = 0;
  int band_rows_ = 0;  // of the output
  std::vector<Run> runs_;
  std::vector<Chunk> chunks_;
  std::vector<Block> blocks_;
  std::vector<std::ptrdiff_t> pixel_offsets_;  // of the window of each of a band's output pixels in the staged input
  AlignedBuffer packed_filters_;
  AlignedBuffer staged_;
  std::vector<std::uint8_t> padding_row_;  // staged
};

template <typename TileKernel>
void TiledConvolution::with_tile(std::size_t chunk, const Block& block, const Tile& tile, TileKernel kernel) const {
  const std::ptrdiff_t group_offset = std::ptrdiff_t{block.group} * group_words() * geometry_.staged_bytes;
  const std::uint8_t* pixels[kTilePixels];
  for (int i = 0; i < kTilePixels; ++i) {
    pixels[i] = staged_.data() + pixel_offsets_[static_cast<std::size_t>(tile.in_band + std::min(i, tile.pixels - 1))] + group_offset;
  }
  kernel(pixels, &runs_[static_cast<std::size_t>(chunks_[chunk].first_run)], chunks_[chunk].run_count,
         packed_filters_.data() + block.filters[chunk]);
}

template <typename Stage, typename Run>
void TiledConvolution::for_each_band(Stage stage, Run run) const {
  const Axis &y = axes_[0], &x = axes_[1];
  const std::size_t pixel_bytes =
      static_cast<std::size_t>(geometry_.pixel_words) * static_cast<std::size_t>(geometry_.staged_bytes);
  // VALID windows may leave the last columns unread.
  const int columns = std::min(x.input, x.covered() - x.padding);
  for (int image = 0; image < batch_; ++image) {
    for (int first = 0; first < y.output; first += band_rows_) {
      const int output_rows = std::min(band_rows_, y.output - first);
      const std::int64_t begun = times != nullptr ? nanoseconds_now() : 0;
      std::uint8_t* staged = staged_.data();
      const int top = first * y.stride - y.padding;
      for (int row = top; row < top + y.covered_by(output_rows); ++row, staged += padding_row_.size()) {
        if (row < 0 || row >= y.input) {
          std::memcpy(staged, padding_row_.data(), padding_row_.size());
        } else {
          stage(image, row, staged + static_cast<std::size_t>(x.padding) * pixel_bytes, columns);
        }
      }
      if (times != nullptr) times->staging += nanoseconds_now() - begun;
      run(Band{image, first, (image * y.output + first) * x.output, output_rows * x.output});
    }
  }
}

template <typename Work>
void TiledConvolution::for_each_tile(const Band& band, ThreadPool& pool, bool blocks_may_part, Work work) const {
  const int tiles = (band.pixels + kTilePixels - 1) / kTilePixels;
  const int ranges = (tiles + kTilesPerPiece - 1) / kTilesPerPiece;
  const int block_count = static_cast<int>(blocks_.size());
  const bool blocks_apart = blocks_may_part && pool.threads() > 1 && ranges < 2 * pool.threads();
  pool.run(blocks_apart ? ranges * block_count : ranges, [&](int piece) {
    const int first_tile = piece % ranges * kTilesPerPiece;
    const int last_tile = std::min(first_tile + kTilesPerPiece, tiles);
    const int first_block = blocks_apart ? piece / ranges : 0;
    const int last_block = blocks_apart ? first_block + 1 : block_count;
    for (int block = first_block; block < last_block; ++block) {  // whose filters stay in the nearest cache
      for (int number = first_tile; number < last_tile; ++number) {
        const int in_band = number * kTilePixels;
        const Tile tile{band.first_pixel + in_band, in_band, std::min(kTilePixels, band.pixels - in_band)};
        work(blocks_[static_cast<std::size_t>(block)], tile);
      }
    }
  });
}

}  // namespace binvpr
