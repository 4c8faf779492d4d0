// SPDX-License-Identifier: Apache-2.0
#include "convolution.h"

#include <algorithm>
#include <limits>

#include "options.h"

namespace binvpr {
namespace {

using tflite_abi::kFloat32;
using tflite_abi::kInt32;
using tflite_abi::kInt8;

struct Range {
  std::int32_t min, max;
};

Range activation_range(int activation) {
  constexpr std::int32_t lowest = std::numeric_limits<std::int32_t>::min();
  constexpr std::int32_t highest = std::numeric_limits<std::int32_t>::max();
  switch (activation) {
    case tflite_abi::kActNone:
      return {lowest, highest};
    case tflite_abi::kActRelu:
      return {0, highest};
    case tflite_abi::kActReluN1To1:
      return {-1, 1};
    case tflite_abi::kActRelu6:
      return {0, 6};
    default:
      throw Refusal("LceBconv2d has an activation function that is unknown; convert the model again");
  }
}

// Writes the bits of `channels` channels from `first_channel` on into a pixel's words. Channels come in ascending order
// where they share a word, so the first to reach a word clears the rest of it.
void write_bits(std::uint64_t bits, int first_channel, int channels, std::int32_t* words) {
  if (channels < 64) bits &= (std::uint64_t{1} << channels) - 1;
  const int shift = first_channel % kWordBits;
  words += first_channel / kWordBits;
  if (shift > 0) {
    *words |= static_cast<std::int32_t>(static_cast<std::uint32_t>(bits << shift));
    ++words;
    bits >>= kWordBits - shift;
    channels -= kWordBits - shift;
  }
  for (; channels > 0; channels -= kWordBits, bits >>= kWordBits) {
    *words++ = static_cast<std::int32_t>(static_cast<std::uint32_t>(bits));
  }
}

bool is_constant(const TensorFacts& tensor, tflite_abi::Type type, const Dims& dims) {
  return tensor.present && tensor.constant != nullptr && tensor.type == type && tensor.dims == dims;
}

}  // namespace

BinaryConvolution::BinaryConvolution(const NodeFacts& node, const Kernel& kernel) : kernel_(kernel) {
  OptionTaker options("LceBconv2d", node.custom_options, node.custom_options_size);
  Geometry geometry{};
  geometry.stride_height = options.take("stride_height");
  geometry.stride_width = options.take("stride_width");
  geometry.dilation_height = options.take("dilation_height_factor");
  geometry.dilation_width = options.take("dilation_width_factor");
  geometry.same_padding = options.take_same_padding();
  const std::int32_t pad_values = options.take("pad_values");
  channels_in_ = options.take("channels_in");
  const Range range = activation_range(options.take("fused_activation_function"));
  options.require_none_left();
  require(pad_values == 0 || pad_values == 1,
          "the option pad_values of LceBconv2d must be 0 or 1; convert the model again");
  require(channels_in_ > 0 && channels_in_ < 1 << 24,
          "the option channels_in of LceBconv2d is out of range; convert the model again");
  zero_padding_ = geometry.same_padding && pad_values == 0;

  require(node.inputs.size() == 5 && node.outputs.size() == 1,
          "LceBconv2d must have 5 inputs and 1 output; convert the model again");
  const TensorFacts& input = node.inputs[0];
  const TensorFacts& filter = node.inputs[1];
  const TensorFacts& output = node.outputs[0];
  require(input.present && input.type == kInt32 && input.constant == nullptr,
          "the input of LceBconv2d must be packed bits (int32), not constant; convert the model again");
  require(filter.present && filter.constant != nullptr && filter.type == kInt32 && filter.dims.size() == 4,
          "the filter of LceBconv2d must be constant packed bits (int32) in 4 dimensions; convert the model again");
  element_count(filter.dims);
  const int channels_out = geometry.channels_out = filter.dims[0];
  geometry.filter_height = filter.dims[1];
  geometry.filter_width = filter.dims[2];
  filters_ = filter.data<std::int32_t>();

  geometry.pixel_words = words_for(channels_in_);
  require(geometry.pixel_words % filter.dims[3] == 0,
          "the filter of LceBconv2d does not fit channels_in; convert the model again");
  const int groups = geometry.groups = geometry.pixel_words / filter.dims[3];
  require(groups == 1 || (channels_in_ % groups == 0 && channels_in_ / groups % kWordBits == 0 &&
                          channels_out % groups == 0),
          "the groups of LceBconv2d do not divide its channels into words of 32; convert the model again");
  geometry.channels_in = channels_in_ / groups;
  geometry.staged_bytes = kernel.staged_bytes_per_word;
  geometry.chunk_words = kMaxCount / kWordBits;
  // So that a filter, stride or dilation out of range is refused now and not at the first input.
  Axis(1, geometry.filter_height, geometry.stride_height, geometry.dilation_height, true);
  Axis(1, geometry.filter_width, geometry.stride_width, geometry.dilation_width, true);
  set_geometry(geometry);

  const Dims per_channel = {channels_out};
  const std::int64_t window = std::int64_t{geometry.filter_height} * geometry.filter_width * (channels_in_ / groups);
  require(window < 1 << 29, "the window of LceBconv2d is too large; convert the model again");
  output_type_ = output.type;
  if (output_type_ == kInt32) {
    require(is_constant(node.inputs[4], kInt32, per_channel),
            "LceBconv2d needs a constant int32 threshold for each output channel; convert the model again");
    thresholds_ = node.inputs[4].data<std::int32_t>();
  } else {
    require(output_type_ == kFloat32 || output_type_ == kInt8,
            "the output of LceBconv2d must be float32, int8 or packed bits (int32); convert the model again");
    require(is_constant(node.inputs[2], kFloat32, per_channel) && is_constant(node.inputs[3], kFloat32, per_channel),
            "LceBconv2d needs a constant float32 multiplier and bias for each output channel; convert the model again");
    require(output_type_ == kFloat32 || (output.is_quantized && output.scale > 0),
            "the int8 output of LceBconv2d has no scale; convert the model again");
    const auto size = static_cast<std::int32_t>(window);
    clamp_min_ = size - std::min(range.max, size);
    clamp_max_ = size - std::max(range.min, -size);
    // A file may have set bits of channels that there are not, which count too.
    const std::int64_t most = std::int64_t{geometry.filter_height} * geometry.filter_width * filter.dims[3] * kWordBits;
    clamps_ = clamp_min_ > 0 || clamp_max_ < 2 * most;
    const double scale = output_type_ == kInt8 ? static_cast<double>(output.scale) : 1.0;
    const double zero_point = output_type_ == kInt8 ? output.zero_point : 0.0;
    for (int i = 0; i < channels_out; ++i) {
      const double multiplier = node.inputs[2].data<float>()[i];
      const double bias = node.inputs[3].data<float>()[i];
      multiplier_.push_back(static_cast<float>(-multiplier / scale));
      bias_.push_back(static_cast<float>((bias + static_cast<double>(window) * multiplier) / scale + zero_point));
    }
  }
}

std::vector<Dims> BinaryConvolution::prepare(const std::vector<Dims>& inputs) {
  require(inputs[0].size() == 4 && inputs[0][3] == geometry().pixel_words,
          "the input of LceBconv2d does not have the shape that its filter needs; check the input's shape");
  const Dims unpacked = set_input_size(inputs[0]);
  Dims part = unpacked;
  part[3] /= shortcut_repeats_;
  require(!adds_shortcut_ || inputs[1] == part,
          "the two sides of a shortcut's addition have different shapes; check the input's shape");
  if (!filters_are_packed()) pack_filters(kernel_.pack, filters_);
  if (output_type_ == kInt32 && least_counts_.empty()) find_least_counts();
  if (zero_padding_ && tap_corrections_.empty()) find_tap_corrections();
  Dims packed = unpacked;
  packed[3] = words_for(unpacked[3]);
  if (output_type_ == kInt32) return {packed};
  if (packs_) return {unpacked, packed};
  return {unpacked};
}

void BinaryConvolution::also_quantize(float inverse_scale, int zero_point) {
  quantizes_ = true;
  inverse_scale_ = inverse_scale;
  zero_point_ = zero_point;
}

// A block's channels must lie side by side in the shortcut.
bool BinaryConvolution::can_repeat_shortcut(int repeats) const {
  return repeats > 0 && geometry().groups == 1 && geometry().channels_out % (repeats * kTileChannels) == 0;
}

// Where the channels of a group do not fill whole words, neighbouring blocks write to one word.
bool BinaryConvolution::blocks_share_words() const {
  return geometry().groups > 1 && geometry().channels_out / geometry().groups % kWordBits != 0;
}

void BinaryConvolution::find_least_counts() {
  least_counts_.reserve(blocks().size() * kTileChannels);  // all or, where memory runs out, none
  for (const Block& block : blocks()) {
    for (int i = 0; i < kTileChannels; ++i) {
      const std::int64_t least = i < block.channels ? std::int64_t{thresholds_[block.first_channel + i]} + 1 : 0;
      least_counts_.push_back(
          static_cast<std::uint16_t>(std::max<std::int64_t>(0, std::min<std::int64_t>(least, kMaxCount + 1))));
    }
  }
}

// A window's place outside the image is neither +1 nor -1. The filter's bits there have been counted as differences
// from +1; these corrections of the doubled count take them back.
void BinaryConvolution::find_tap_corrections() {
  const int taps = geometry().filter_height * geometry().filter_width;
  const int channels = geometry().channels_out;
  tap_corrections_.assign(static_cast<std::size_t>(taps) * static_cast<std::size_t>(channels), 0);
  const std::int32_t* word = filters_;
  for (int channel = 0; channel < channels; ++channel) {
    for (int tap = 0; tap < taps; ++tap) {
      int bits = 0;
      for (int i = 0; i < group_words(); ++i) bits += __builtin_popcount(static_cast<unsigned>(*word++));
      tap_corrections_[static_cast<std::size_t>(tap * channels + channel)] = channels_in_ / geometry().groups - 2 * bits;
    }
  }
}

void BinaryConvolution::run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                            ThreadPool& pool) {
  const auto* input = static_cast<const std::int32_t*>(inputs[0]);
  const std::size_t row_words =
      static_cast<std::size_t>(columns().input) * static_cast<std::size_t>(geometry().pixel_words);
  const auto* shortcut = adds_shortcut_ ? static_cast<const float*>(inputs[1]) : nullptr;
  auto* packed = static_cast<std::int32_t*>(packs_ ? outputs[1] : nullptr);
  const auto stage = [&](int image, int row, std::uint8_t* staged, int pixels) {
    const auto line = static_cast<std::size_t>(image * rows().input + row);
    kernel_.stage(input + line * row_words, pixels * geometry().pixel_words, staged);
  };
  for_each_band(stage, [&](const Band& band) {
    for_each_tile(band, pool, !blocks_share_words(), [&](const Block& block, const Tile& tile) {
      if (gives_float()) {
        run_float_tile(block, tile, shortcut, outputs[0], packed);
      } else {
        run_tile(block, tile, outputs[0]);
      }
    });
  });
}

RealTransform BinaryConvolution::transform_of(const Block& block) const {
  const auto channel = static_cast<std::size_t>(block.first_channel);
  return {clamps_, clamp_min_, clamp_max_, &multiplier_[channel], &bias_[channel]};
}

// The doubled counts of a tile.
void BinaryConvolution::sum_up(const Block& block, const Tile& tile, std::int32_t (*sums)[kTileChannels]) const {
  alignas(64) std::uint16_t counts[kTilePixels * kTileChannels];
  std::memset(sums, 0, kTilePixels * sizeof(*sums));
  for (std::size_t chunk = 0; chunk < chunk_count(); ++chunk) {
    count_tile(kernel_.count, chunk, block, tile, counts);
    for (int i = 0; i < tile.pixels; ++i) kernel_.add_doubled(counts + i * kTileChannels, sums[i]);
  }
  for (int i = 0; zero_padding_ && i < tile.pixels; ++i) correct_zero_padding(tile.first_pixel + i, block, sums[i]);
}

void BinaryConvolution::run_float_tile(const Block& block, const Tile& tile, const float* shortcut, void* output,
                                       std::int32_t* packed) const {
  TileTimer timer(times, tile.in_band / kTilePixels);
  const auto channels_out = static_cast<std::size_t>(geometry().channels_out);
  const auto words_out = static_cast<std::size_t>(words_for(geometry().channels_out));
  const std::size_t shortcut_stride = channels_out / static_cast<std::size_t>(shortcut_repeats_);
  const auto channel = static_cast<std::size_t>(block.first_channel);
  const auto pixel = static_cast<std::size_t>(tile.first_pixel), pixels = static_cast<std::size_t>(tile.pixels);
  const std::size_t at = pixel * channels_out + channel;
  alignas(64) float scratch[kTilePixels * kTileChannels];  // where nobody reads the floats
  const bool keeps = output != nullptr && !quantizes_;
  float* values = keeps ? static_cast<float*>(output) + at : scratch;
  const std::size_t stride = keeps ? channels_out : kTileChannels;
  if (shortcut != nullptr) shortcut += pixel * shortcut_stride + channel % shortcut_stride;
  if (packed != nullptr) packed += pixel * words_out + channel / kWordBits;

  const RealTransform transform = transform_of(block);
  if (chunk_count() == 1 && !zero_padding_) {
    const FloatTile to{tile.pixels, block.channels, shortcut, shortcut_stride, values, stride, packed, words_out};
    with_tile(0, block, tile, [&](const auto* inputs, const Run* runs, int run_count, const auto* filters) {
      kernel_.count_to_float(inputs, runs, run_count, filters, transform, to);
    });
    timer.counted();
  } else {
    alignas(64) std::int32_t sums[kTilePixels][kTileChannels];
    sum_up(block, tile, sums);
    timer.counted();
    for (std::size_t i = 0; i < pixels; ++i) {
      kernel_.to_float(sums[i], block.channels, transform, shortcut != nullptr ? shortcut + i * shortcut_stride : nullptr,
                       values + i * stride, packed != nullptr ? packed + i * words_out : nullptr);
    }
  }
  for (std::size_t i = 0; quantizes_ && i < pixels; ++i) {
    kernel_.quantize(values + i * stride, static_cast<std::size_t>(block.channels), inverse_scale_, zero_point_,
                     static_cast<std::int8_t*>(output) + at + i * channels_out);
  }
}

void BinaryConvolution::run_tile(const Block& block, const Tile& tile, void* output) const {
  TileTimer timer(times, tile.in_band / kTilePixels);
  const auto channels_out = static_cast<std::size_t>(geometry().channels_out);
  const auto words_out = static_cast<std::size_t>(words_for(geometry().channels_out));
  const bool counts_suffice = output_type_ == kInt32 && chunk_count() == 1 && !zero_padding_;
  alignas(64) std::uint16_t counts[kTilePixels * kTileChannels];
  alignas(64) std::int32_t sums[kTilePixels][kTileChannels];
  if (counts_suffice) {
    count_tile(kernel_.count, 0, block, tile, counts);
  } else {
    sum_up(block, tile, sums);
  }
  timer.counted();

  for (int i = 0; i < tile.pixels; ++i) {
    const auto pixel = static_cast<std::size_t>(tile.first_pixel + i);
    if (output_type_ == kInt8) {
      const std::size_t at = pixel * channels_out + static_cast<std::size_t>(block.first_channel);
      kernel_.to_int8(sums[i], block.channels, transform_of(block), static_cast<std::int8_t*>(output) + at);
      continue;
    }
    std::uint64_t bits = 0;
    if (counts_suffice) {
      bits = kernel_.reach(counts + i * kTileChannels, &least_counts_[index_of(block) * kTileChannels]);
    } else {
      for (int c = 0; c < block.channels; ++c) {
        const bool above = sums[i][c] > 2 * std::int64_t{thresholds_[block.first_channel + c]};
        bits |= static_cast<std::uint64_t>(above) << c;
      }
    }
    write_bits(bits, block.first_channel, block.channels, static_cast<std::int32_t*>(output) + pixel * words_out);
  }
}

void BinaryConvolution::correct_zero_padding(int pixel, const Block& block, std::int32_t* sums) const {
  const Axis &y = rows(), &x = columns();
  const int top = pixel / x.output % y.output * y.stride - y.padding;
  const int left = pixel % x.output * x.stride - x.padding;
  for (int tap_y = 0; tap_y < y.filter; ++tap_y) {
    const int row = top + tap_y * y.dilation;
    for (int tap_x = 0; tap_x < x.filter; ++tap_x) {
      const int column = left + tap_x * x.dilation;
      if (row >= 0 && row < y.input && column >= 0 && column < x.input) continue;
      const std::int32_t* correction = &tap_corrections_[static_cast<std::size_t>(
          (tap_y * x.filter + tap_x) * geometry().channels_out + block.first_channel)];
      for (int c = 0; c < block.channels; ++c) sums[c] += correction[c];
    }
  }
}

}  // namespace binvpr
