// SPDX-License-Identifier: Apache-2.0
#include "int8_convolution.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

namespace binvpr {
namespace {

using tflite_abi::kInt32;
using tflite_abi::kInt8;

constexpr std::int32_t kMaxBias = 1 << 29;  // so that sums and their rounding fit an int32
constexpr int kMaxWindow = 1 << 16;  // of channels and taps, so that 16 levels * 127 * window fit an int32

struct ClampedRange {
  std::int32_t min, max;
};

// The int8 values that an activation leaves.
ClampedRange clamped(tflite_abi::Activation activation, const TensorFacts& output) {
  const auto quantized = [&output](float real) {
    return static_cast<std::int32_t>(
        std::max(-1000.0F, std::min(1000.0F, static_cast<float>(output.zero_point) + std::round(real / output.scale))));
  };
  ClampedRange range{std::numeric_limits<std::int8_t>::min(), std::numeric_limits<std::int8_t>::max()};
  if (activation != tflite_abi::kActNone) range.min = std::max(range.min, quantized(0.0F));
  if (activation == tflite_abi::kActRelu6) range.max = std::min(range.max, quantized(6.0F));
  return range;
}

bool is_int8(int zero_point) { return zero_point >= -128 && zero_point <= 127; }

bool is_int8_convolution(const NodeFacts& node) {
  if (node.builtin != tflite_abi::kConv2d || node.builtin_options == nullptr || node.inputs.size() < 2 ||
      node.outputs.size() != 1) {
    return false;
  }
  const auto& options = *static_cast<const tflite_abi::ConvParams*>(node.builtin_options);
  const TensorFacts& output = node.outputs[0];
  return output.type == kInt8 && output.is_quantized && output.scale > 0 && is_int8(output.zero_point) &&
         (options.activation == tflite_abi::kActNone || options.activation == tflite_abi::kActRelu ||
          options.activation == tflite_abi::kActRelu6);
}

// The one magnitude of a channel's weights, or 0.
std::int32_t magnitude(const std::int8_t* weights, std::size_t count) {
  const std::int32_t first = std::abs(std::int32_t{weights[0]});
  for (std::size_t i = 1; i < count; ++i) {
    if (std::abs(std::int32_t{weights[i]}) != first) return 0;
  }
  return first;
}

// factor = multiplier * 2^(-31 - shift), as TFLite splits a factor below 1.
void split(double factor, std::int32_t& multiplier, std::int32_t& shift) {
  const double fraction = std::frexp(factor, &shift);
  auto fixed = static_cast<std::int64_t>(std::round(fraction * static_cast<double>(std::int64_t{1} << 31)));
  if (fixed == std::int64_t{1} << 31) {
    fixed /= 2;
    ++shift;
  }
  shift = -shift;
  if (shift > 31) {
    shift = 0;
    fixed = 0;
  }
  multiplier = static_cast<std::int32_t>(fixed);
}

// What both kinds of convolution need.
bool has_known_form(const NodeFacts& node) {
  if (!is_int8_convolution(node)) return false;
  const TensorFacts &input = node.inputs[0], &filter = node.inputs[1];
  if (!input.present || input.type != kInt8 || input.constant != nullptr || input.dims.size() != 4 ||
      !(input.scale > 0) || !is_int8(input.zero_point)) {
    return false;
  }
  if (!filter.present || filter.type != kInt8 || filter.constant == nullptr || filter.dims.size() != 4 ||
      filter.dims[3] != input.dims[3] || filter.channel_axis != 0) {
    return false;
  }
  const auto channels = static_cast<std::size_t>(filter.dims[0]);
  if (element_count(filter.dims) / channels > kMaxWindow ||
      (filter.channel_scales.size() != 1 && filter.channel_scales.size() != channels)) {
    return false;
  }
  if (node.inputs.size() > 2 && node.inputs[2].present) {
    const TensorFacts& bias = node.inputs[2];
    if (bias.type != kInt32 || bias.constant == nullptr || bias.dims != Dims{filter.dims[0]}) return false;
    const auto* values = bias.data<std::int32_t>();
    const auto is_large = [](std::int32_t value) { return value < -kMaxBias || value > kMaxBias; };
    if (std::any_of(values, values + channels, is_large)) return false;
  }
  const auto& options = *static_cast<const tflite_abi::ConvParams*>(node.builtin_options);
  if (options.padding != tflite_abi::kPaddingSame && options.padding != tflite_abi::kPaddingValid) return false;
  for (const float scale : filter.channel_scales) {
    // TFLite shifts to the left where the factor is above 1, or rounds to it; such layers are left to it.
    if (!(scale > 0) || !(static_cast<double>(input.scale) * static_cast<double>(scale) <
                          static_cast<double>(node.outputs[0].scale) * (1 - 1e-9))) {
      return false;
    }
  }
  return true;
}

std::size_t window_of(const TensorFacts& filter) {
  return element_count(filter.dims) / static_cast<std::size_t>(filter.dims[0]);
}

}  // namespace

int output_levels(const NodeFacts& node) {
  if (!is_int8_convolution(node)) return 0;
  const auto& options = *static_cast<const tflite_abi::ConvParams*>(node.builtin_options);
  const TensorFacts& output = node.outputs[0];
  const ClampedRange range = clamped(options.activation, output);
  return range.min == output.zero_point && range.max >= range.min ? range.max - range.min + 1 : 0;
}

Int8Output::Int8Output(const NodeFacts& node) {
  const TensorFacts &input = node.inputs[0], &filter = node.inputs[1], &output = node.outputs[0];
  const auto* bias = node.inputs.size() > 2 && node.inputs[2].present ? node.inputs[2].data<std::int32_t>() : nullptr;
  for (std::size_t channel = 0; channel < static_cast<std::size_t>(filter.dims[0]); ++channel) {
    bias_.push_back(bias != nullptr ? bias[channel] : 0);
    const float scale = filter.channel_scales[filter.channel_scales.size() == 1 ? 0 : channel];
    split(static_cast<double>(input.scale) * static_cast<double>(scale) / static_cast<double>(output.scale),
          multipliers_.emplace_back(), shifts_.emplace_back());
  }
  bias_.resize(bias_.size() + kTileChannels);
  const auto& options = *static_cast<const tflite_abi::ConvParams*>(node.builtin_options);
  const ClampedRange range = clamped(options.activation, output);
  to_ = {nullptr, nullptr, output.zero_point, range.min, range.max};
}

void Int8Output::write(const QuantizedKernel& kernel, const std::int32_t* sums, int first_channel, int channels,
                       std::int8_t* output) const {
  Requantization to = to_;
  to.multipliers = &multipliers_[static_cast<std::size_t>(first_channel)];
  to.shifts = &shifts_[static_cast<std::size_t>(first_channel)];
  kernel.requantize(sums, channels, to, output);
}

bool LevelConvolution::fits(const NodeFacts& node) {
  if (!has_known_form(node) || node.inputs[0].levels < 1 || node.inputs[0].levels > kLevels) return false;
  const TensorFacts& filter = node.inputs[1];
  if (filter.dims[3] % kWordBits != 0) return false;
  for (int channel = 0; channel < filter.dims[0]; ++channel) {
    const auto offset = static_cast<std::size_t>(channel) * window_of(filter);
    if (magnitude(filter.data<std::int8_t>() + offset, window_of(filter)) == 0) return false;
  }
  return true;
}

LevelConvolution::LevelConvolution(const NodeFacts& node, const Kernel& kernel) : kernel_(kernel), output_(node) {
  const auto& options = *static_cast<const tflite_abi::ConvParams*>(node.builtin_options);
  const TensorFacts& filter = node.inputs[1];
  input_zero_ = static_cast<std::int8_t>(node.inputs[0].zero_point);

  Geometry geometry{};
  geometry.stride_height = options.stride_height;
  geometry.stride_width = options.stride_width;
  geometry.dilation_height = options.dilation_height_factor;
  geometry.dilation_width = options.dilation_width_factor;
  geometry.same_padding = options.padding == tflite_abi::kPaddingSame;
  geometry.channels_out = filter.dims[0];
  geometry.filter_height = filter.dims[1];
  geometry.filter_width = filter.dims[2];
  geometry.groups = 1;
  geometry.pixel_words = words_for(filter.dims[3]);
  geometry.staged_bytes = kernel.quantized.staged_bytes_per_word;
  geometry.chunk_words = kMaxCount / (kLevels - 1) / kWordBits;
  set_geometry(geometry);

  const std::size_t count = window_of(filter);
  for (std::size_t channel = 0; channel < static_cast<std::size_t>(filter.dims[0]); ++channel) {
    const std::int8_t* weights = filter.data<std::int8_t>() + channel * count;
    for (std::size_t first = 0; first < count; first += kWordBits) {
      std::uint32_t word = 0;
      for (std::size_t i = 0; i < kWordBits; ++i) word |= static_cast<std::uint32_t>(weights[first + i] < 0) << i;
      signs_.push_back(static_cast<std::int32_t>(word));
    }
    magnitudes_.push_back(magnitude(weights, count));
  }
}

std::vector<Dims> LevelConvolution::prepare(const std::vector<Dims>& inputs) {
  require(inputs[0].size() == 4 && inputs[0][3] == geometry().pixel_words * kWordBits,
          "the input of a convolution does not have the channels of its filter; check the input's shape");
  const Dims output = set_input_size(inputs[0]);
  if (!filters_are_packed()) pack_filters(kernel_.quantized.pack, signs_.data());
  pixel_sums_.assign(element_count({batch(), rows().input, columns().input}), 0);
  window_sums_.assign(static_cast<std::size_t>(pixels()), 0);
  return {output};
}

void LevelConvolution::run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                           ThreadPool& pool) {
  const auto* input = static_cast<const std::int8_t*>(inputs[0]);
  const int channels_in = geometry().pixel_words * kWordBits;
  for_each_input_row([&](int image, int row, std::uint8_t* staged, int pixels) {
    const auto first = static_cast<std::size_t>((image * rows().input + row) * columns().input);
    const std::int8_t* values = input + first * static_cast<std::size_t>(channels_in);
    kernel_.quantized.stage(values, pixels * channels_in, input_zero_, staged);
    for (int pixel = 0; pixel < pixels; ++pixel, values += channels_in) {
      std::int32_t sum = 0;
      for (int i = 0; i < channels_in; ++i) sum += values[i];
      pixel_sums_[first + static_cast<std::size_t>(pixel)] = sum - channels_in * input_zero_;
    }
  });
  for (int pixel = 0; pixel < pixels(); ++pixel) window_sums_[static_cast<std::size_t>(pixel)] = window_sum(pixel);
  auto* output = static_cast<std::int8_t*>(outputs[0]);
  const auto channels_out = static_cast<std::size_t>(geometry().channels_out);
  for_each_tile(pool, false, [&](const Block& block, int first_pixel) {
    alignas(64) std::uint16_t counts[kTilePixels * kTileChannels];
    alignas(64) std::int32_t doubled[kTilePixels][kTileChannels] = {};
    alignas(64) std::int32_t sums[kTileChannels];
    const int count = pixels_of_tile(first_pixel);
    for (std::size_t chunk = 0; chunk < chunk_count(); ++chunk) {
      count_tile(kernel_.quantized.count, chunk, block, first_pixel, counts);
      for (int i = 0; i < count; ++i) kernel_.add_doubled(counts + i * kTileChannels, doubled[i]);
    }
    const std::int32_t* magnitudes = &magnitudes_[static_cast<std::size_t>(block.first_channel)];
    for (int i = 0; i < count; ++i) {
      kernel_.quantized.combine(doubled[i], block.channels, window_sums_[static_cast<std::size_t>(first_pixel + i)], magnitudes,
                                output_.bias(block.first_channel), sums);
      output_.write(kernel_.quantized, sums, block.first_channel, block.channels,
                    output + static_cast<std::size_t>(first_pixel + i) * channels_out +
                        static_cast<std::size_t>(block.first_channel));
    }
  });
}

// The sum of all input channels over an output pixel's window; outside the image the input is zero.
std::int32_t LevelConvolution::window_sum(int pixel) const {
  const Axis &y = rows(), &x = columns();
  const int image = pixel / x.output / y.output;
  const int top = pixel / x.output % y.output * y.stride - y.padding;
  const int left = pixel % x.output * x.stride - x.padding;
  std::int32_t sum = 0;
  for (int tap_y = 0; tap_y < y.filter; ++tap_y) {
    const int row = top + tap_y * y.dilation;
    if (row < 0 || row >= y.input) continue;
    for (int tap_x = 0; tap_x < x.filter; ++tap_x) {
      const int column = left + tap_x * x.dilation;
      if (column < 0 || column >= x.input) continue;
      sum += pixel_sums_[static_cast<std::size_t>((image * y.input + row) * x.input + column)];
    }
  }
  return sum;
}

bool PatchConvolution::fits(const NodeFacts& node) {
  return has_known_form(node) && window_of(node.inputs[1]) <= kMaxPatch;
}

PatchConvolution::PatchConvolution(const NodeFacts& node, const Kernel& kernel)
    : kernel_(kernel.quantized),
      options_(*static_cast<const tflite_abi::ConvParams*>(node.builtin_options)),
      filter_(node.inputs[1].dims),
      patch_(static_cast<int>(window_of(node.inputs[1]) + 1) / 2 * 2),
      input_zero_(node.inputs[0].zero_point),
      output_(node) {
  const int window = static_cast<int>(window_of(node.inputs[1]));
  const auto* weights = node.inputs[1].data<std::int8_t>();
  for (int first = 0; first < filter_[0]; first += kTileChannels) {
    for (int pair = 0; pair < patch_; pair += 2) {
      for (int channel = first; channel < first + kTileChannels; ++channel) {
        for (int i = pair; i < pair + 2; ++i) {
          weights_.push_back(channel < filter_[0] && i < window ? weights[channel * window + i] : std::int16_t{0});
        }
      }
    }
  }
}

std::vector<Dims> PatchConvolution::prepare(const std::vector<Dims>& inputs) {
  require(inputs[0].size() == 4 && inputs[0][3] == filter_[3],
          "the input of a convolution does not have the channels of its filter; check the input's shape");
  element_count(inputs[0]);
  input_ = inputs[0];
  const bool same = options_.padding == tflite_abi::kPaddingSame;
  axes_.clear();
  axes_.emplace_back(input_[1], filter_[1], options_.stride_height, options_.dilation_height_factor, same);
  axes_.emplace_back(input_[2], filter_[2], options_.stride_width, options_.dilation_width_factor, same);
  const Dims output = {input_[0], axes_[0].output, axes_[1].output, filter_[0]};
  element_count(output);
  staged_.assign(element_count({input_[0], axes_[0].covered(), axes_[1].covered(), input_[3]}), 0);
  return {output};
}

void PatchConvolution::run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                           ThreadPool& pool) {
  constexpr int kTilesPerPiece = 32;
  stage_input(static_cast<const std::int8_t*>(inputs[0]));
  auto* output = static_cast<std::int8_t*>(outputs[0]);
  const int pixels = input_[0] * axes_[0].output * axes_[1].output;
  const int tiles = (pixels + kTilePixels - 1) / kTilePixels;
  const int channels = filter_[0];
  pool.run((tiles + kTilesPerPiece - 1) / kTilesPerPiece, [&](int piece) {
    alignas(64) std::int16_t patches[kTilePixels * kMaxPatch];
    alignas(64) std::int32_t sums[kTilePixels][kTileChannels];
    for (int tile = piece * kTilesPerPiece; tile < std::min(tiles, (piece + 1) * kTilesPerPiece); ++tile) {
      const int first_pixel = tile * kTilePixels;
      const int count = std::min(kTilePixels, pixels - first_pixel);
      for (int i = 0; i < kTilePixels; ++i) {
        copy_patch(first_pixel + std::min(i, count - 1), patches + i * patch_);
      }
      for (int first = 0; first < channels; first += kTileChannels) {
        kernel_.multiply(patches, patch_, &weights_[static_cast<std::size_t>(first * patch_)], output_.bias(first),
                         sums[0]);
        for (int i = 0; i < count; ++i) {
          output_.write(kernel_, sums[i], first, std::min(kTileChannels, channels - first),
                        output + static_cast<std::size_t>(first_pixel + i) * static_cast<std::size_t>(channels) +
                            static_cast<std::size_t>(first));
        }
      }
    }
  });
}

void PatchConvolution::stage_input(const std::int8_t* input) {
  const Axis &y = axes_[0], &x = axes_[1];
  const int rows = std::min(y.input, y.covered() - y.padding);
  const auto values = static_cast<std::size_t>(std::min(x.input, x.covered() - x.padding) * filter_[3]);
  for (int image = 0; image < input_[0]; ++image) {
    for (int row = 0; row < rows; ++row) {
      const std::int8_t* from = input + static_cast<std::size_t>((image * y.input + row) * x.input * filter_[3]);
      std::int16_t* to = &staged_[static_cast<std::size_t>(
          ((image * y.covered() + row + y.padding) * x.covered() + x.padding) * filter_[3])];
      for (std::size_t i = 0; i < values; ++i) to[i] = static_cast<std::int16_t>(from[i] - input_zero_);
    }
  }
}

void PatchConvolution::copy_patch(int pixel, std::int16_t* patch) const {
  const Axis &y = axes_[0], &x = axes_[1];
  const int image = pixel / x.output / y.output;
  const int top = pixel / x.output % y.output * y.stride;
  const int left = pixel % x.output * x.stride;
  const bool whole_rows = x.dilation == 1;  // the taps of a filter row lie side by side
  const int run = (whole_rows ? x.filter : 1) * filter_[3];
  patch[patch_ - 1] = 0;  // where the window has an odd number of values, the last is to fill up
  for (int tap_y = 0; tap_y < y.filter; ++tap_y) {
    const std::int16_t* values =
        &staged_[static_cast<std::size_t>(((image * y.covered() + top + tap_y * y.dilation) * x.covered() + left) * filter_[3])];
    for (int tap_x = 0; tap_x < (whole_rows ? 1 : x.filter); ++tap_x, values += x.dilation * filter_[3]) {
      patch = std::copy_n(values, run, patch);
    }
  }
}

}  // namespace binvpr
