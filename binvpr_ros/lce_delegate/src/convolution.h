// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "tiled_convolution.h"

namespace binvpr {

// LceBconv2d: convolution of packed signs with packed signs.
//
// Semantics are those of the Larq Compute Engine's reference kernel: the bits in which input and filter differ are
// counted over the window (outside the image bits are 0, which stands for +1); `channels - 2 count` is the product, an
// activation clamps it, and a multiplier and a bias a channel (the batch norm) turn it into float or int8 output, or a
// threshold a channel into a bit.
class BinaryConvolution : public TiledConvolution {
 public:
  BinaryConvolution(const NodeFacts& node, const Kernel& kernel);

  // A float result may take the shortcut's addition and the next layer's quantization along, while it is at hand.
  // After add_shortcut() there is a second input, of the output's size; after also_pack() a second output: the signs.
  bool gives_float() const { return output_type_ == tflite_abi::kFloat32; }
  bool can_pack() const override { return gives_float() && !packs_ && !blocks_share_words(); }
  void also_pack() override { packs_ = true; }
  void add_shortcut() { adds_shortcut_ = true; }

  // Whether that second input may have a part of the channels, to be repeated so often; and makes it so.
  bool can_repeat_shortcut(int repeats) const;
  void repeat_shortcut(int repeats) { shortcut_repeats_ = repeats; }

  // The first output becomes int8, as by FloatToInt8.
  void also_quantize(float inverse_scale, int zero_point);

  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override;
  bool may_replace_second_input() const override { return adds_shortcut_ && shortcut_repeats_ == 1 && !quantizes_; }
  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& pool) override;

 private:
  void run_tile(const Block& block, const Tile& tile, void* output) const;
  void run_float_tile(const Block& block, const Tile& tile, const float* shortcut, void* output, std::int32_t* packed) const;
  void sum_up(const Block& block, const Tile& tile, std::int32_t (*sums)[kTileChannels]) const;
  RealTransform transform_of(const Block& block) const;
  bool blocks_share_words() const;
  void find_least_counts();
  void find_tap_corrections();
  void correct_zero_padding(int pixel, const Block& block, std::int32_t* sums) const;

  const Kernel& kernel_;
  bool zero_padding_;
  int channels_in_;
  tflite_abi::Type output_type_;
  const std::int32_t* filters_;  // [channels_out][filter_height][filter_width][words of a group]
  bool adds_shortcut_ = false;
  int shortcut_repeats_ = 1;
  bool packs_ = false;
  bool quantizes_ = false;
  float inverse_scale_ = 0;
  int zero_point_ = 0;

  // The output transform.
  bool clamps_ = false;
  std::int32_t clamp_min_ = 0, clamp_max_ = 0;
  std::vector<float> multiplier_, bias_;
  const std::int32_t* thresholds_ = nullptr;   // [channels_out]: the bit is set where the count is above
  std::vector<std::uint16_t> least_counts_;    // [block][kTileChannels]: the least count that sets the bit
  std::vector<std::int32_t> tap_corrections_;  // [tap][channels_out], for zero padding
};

}  // namespace binvpr
