// SPDX-License-Identifier: Apache-2.0
// CONV_2D in int8, as it stands in front of the binary layers. Results are those of TFLite's own kernels on x86-64, bit by
// bit, on every processor; its kernels for ARM round halves otherwise, so that one value in a thousand differs by one.
#pragma once

#include <vector>

#include "tiled_convolution.h"

namespace binvpr {

// From a convolution's sums to its int8 output.
class Int8Output {
 public:
  explicit Int8Output(const NodeFacts& node);

  // Of the channels from `first_channel` on.
  Requantization requantization(int first_channel) const;

  // Of the channels from `first_channel` on; zeros follow up to a whole tile.
  const std::int32_t* bias(int first_channel) const { return &bias_[static_cast<std::size_t>(first_channel)]; }

 private:
  std::vector<std::int32_t> bias_, multipliers_, shifts_, halves_;
  Requantization to_{};
};

// A layer with binary weights (each channel's weights have one magnitude) and an input of four bits (at most 16 levels),
// in a form that every TFLite runtime can run.
//
// With signs s = +-1 the product is sum(x s) = sum(x) - 2 sum(x where s < 0). Four channels of x have sixteen such sums,
// which stand in a table that a filter's four signs look up, as in BinaryConvolution. The sum over the window is the same
// for all output channels.
class LevelConvolution : public TiledConvolution {
 public:
  static bool fits(const NodeFacts& node);
  LevelConvolution(const NodeFacts& node, const Kernel& kernel);

  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override;
  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& pool) override;

 private:
  void add_up_windows(const Band& band);
  void run_tile(const Block& block, const Tile& tile, std::int8_t* output) const;

  const Kernel& kernel_;
  std::int8_t input_zero_;
  std::vector<std::int32_t> signs_;  // [channels_out][filter_height][filter_width][words]: bit 1 is -1
  std::vector<std::int32_t> magnitudes_;  // [channels_out] and zeros up to a whole tile
  Int8Output output_;
  std::vector<std::int32_t> pixel_sums_;   // [N][H][W] of the input
  std::vector<std::int32_t> window_sums_;  // [N][H][W] of the output
};

// Any other layer: input of eight bits against weights of eight.
//
// With the input's zero point z the sum is sum((x - z) w) = sum(x w) - z sum(w), of which the latter is part of the bias.
class Int8Convolution : public TiledConvolution {
 public:
  static bool fits(const NodeFacts& node);
  Int8Convolution(const NodeFacts& node, const Kernel& kernel);

  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override;
  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& pool) override;

 private:
  void run_tile(const Block& block, const Tile& tile, std::int8_t* output) const;

  const QuantizedKernel& kernel_;
  std::int8_t input_zero_;
  std::vector<std::int32_t> weights_;  // [channels_out][filter_height][filter_width][channels_in]
  std::vector<std::int32_t> bias_;     // [channels_out] and zeros up to a whole tile, for staged input
  Int8Output output_;
};

// The number of values, from its zero point on, that a node's int8 output can take because of its fused activation; 0
// where that is not known to be few.
int output_levels(const NodeFacts& node);

}  // namespace binvpr
