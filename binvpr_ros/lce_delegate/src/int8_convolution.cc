// SPDX-License-Identifier: Apache-2.0
#include "int8_convolution.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

namespace binvpr {
namespace {

using tflite_abi::kInt32;
using tflite_abi::kInt8;

constexpr std::int32_t kMaxBias = 1 << 29;  // so that sums are within 2^30, as requantization needs them
constexpr int kMaxWindow = 1 << 16;  // of channels and taps, so that 16 levels * 127 * window fit an int32
constexpr int kMaxValues = 1 << 14;  // the same, so that 256 * 127 * window and a bias do

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
    halves_.push_back(static_cast<std::int32_t>(std::uint32_t{1} << shifts_.back() >> 1));
  }
  for (auto* values : {&bias_, &multipliers_, &shifts_, &halves_}) values->resize(values->size() + kTileChannels);
  const auto& options = *static_cast<const tflite_abi::ConvParams*>(node.builtin_options);
  const ClampedRange range = clamped(options.activation, output);
  to_ = {nullptr, nullptr, nullptr, output.zero_point, range.min, range.max};
}

Requantization Int8Output::requantization(int first_channel) const {
  Requantization to = to_;
  to.multipliers = &multipliers_[static_cast<std::size_t>(first_channel)];
  to.shifts = &shifts_[static_cast<std::size_t>(first_channel)];
  to.halves = &halves_[static_cast<std::size_t>(first_channel)];
  return to;
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
  const TensorFacts& filter = node.inputs[1];
  input_zero_ = static_cast<std::int8_t>(node.inputs[0].zero_point);

  Geometry geometry = geometry_of(node);
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
  magnitudes_.resize(magnitudes_.size() + kTileChannels);
}

std::vector<Dims> LevelConvolution::prepare(const std::vector<Dims>& inputs) {
  require(inputs[0].size() == 4 && inputs[0][3] == geometry().pixel_words * kWordBits,
          "the input of a convolution does not have the channels of its filter; check the input's shape");
  const Dims output = set_input_size(inputs[0]);
  if (!filters_are_packed()) pack_filters(kernel_.quantized.pack, signs_.data());
  pixel_sums_.assign(element_count({inputs[0][0], rows().input, columns().input}), 0);
  window_sums_.assign(element_count({inputs[0][0], rows().output, columns().output}), 0);
  return {output};
}

void LevelConvolution::run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                           ThreadPool& pool) {
  const auto* input = static_cast<const std::int8_t*>(inputs[0]);
  const int channels_in = geometry().pixel_words * kWordBits;
  const auto stage = [&](int image, int row, std::uint8_t* staged, int pixels) {
    const auto first = static_cast<std::size_t>((image * rows().input + row) * columns().input);
    const std::int8_t* values = input + first * static_cast<std::size_t>(channels_in);
    const std::ptrdiff_t pixel_bytes = geometry().pixel_words * geometry().staged_bytes;
    for (int pixel = 0; pixel < pixels; ++pixel, values += channels_in, staged += pixel_bytes) {
      pixel_sums_[first + static_cast<std::size_t>(pixel)] =
          kernel_.quantized.stage(values, channels_in, input_zero_, staged);
    }
  };
  auto* output = static_cast<std::int8_t*>(outputs[0]);
  for_each_band(stage, [&](const Band& band) {
    add_up_windows(band);
    for_each_tile(band, pool, true, [&](const Block& block, const Tile& tile) { run_tile(block, tile, output); });
  });
}

void LevelConvolution::run_tile(const Block& block, const Tile& tile, std::int8_t* output) const {
  TileTimer timer(times, tile.in_band / kTilePixels);
  const QuantizedKernel& kernel = kernel_.quantized;
  const auto channels_out = static_cast<std::size_t>(geometry().channels_out);
  const auto channel = static_cast<std::size_t>(block.first_channel);
  std::int8_t* values = output + static_cast<std::size_t>(tile.first_pixel) * channels_out + channel;
  const Int8Tile to{tile.pixels, block.channels, channels_out, values};
  const Requantization requantization = output_.requantization(block.first_channel);
  const std::int32_t* bias = output_.bias(block.first_channel);
  std::int32_t totals[kTilePixels] = {};
  std::copy_n(&window_sums_[static_cast<std::size_t>(tile.first_pixel)], tile.pixels, totals);
  if (chunk_count() == 1) {
    with_tile(0, block, tile, [&](const auto* pixels, const Run* runs, int run_count, const auto* filters) {
      kernel.count_to_int8(pixels, runs, run_count, filters, totals, &magnitudes_[channel], bias, requantization, to);
    });
    timer.counted();
    return;
  }
  alignas(64) std::uint16_t counts[kTilePixels * kTileChannels];
  alignas(64) std::int32_t doubled[kTilePixels][kTileChannels] = {};
  alignas(64) std::int32_t sums[kTilePixels][kTileChannels];
  for (std::size_t chunk = 0; chunk < chunk_count(); ++chunk) {
    count_tile(kernel.count, chunk, block, tile, counts);
    for (int i = 0; i < tile.pixels; ++i) kernel_.add_doubled(counts + i * kTileChannels, doubled[i]);
  }
  timer.counted();
  for (int i = 0; i < tile.pixels; ++i) {
    kernel.combine(doubled[i], block.channels, totals[i], &magnitudes_[channel], bias, sums[i]);
  }
  kernel.requantize(sums[0], requantization, to);
}

// The sums of all input channels over the windows of a band; outside the image the input is zero.
void LevelConvolution::add_up_windows(const Band& band) {
  const Axis &y = rows(), &x = columns();
  const auto at = [](int index) { return static_cast<std::size_t>(index); };
  std::fill_n(window_sums_.begin() + band.first_pixel, band.pixels, 0);
  for (int row = 0; row < band.pixels / x.output; ++row) {
    std::int32_t* sums = &window_sums_[at(band.first_pixel + row * x.output)];
    for (int tap_y = 0; tap_y < y.filter; ++tap_y) {
      const int input_row = (band.first_row + row) * y.stride - y.padding + tap_y * y.dilation;
      if (input_row < 0 || input_row >= y.input) continue;
      const std::int32_t* line = &pixel_sums_[at((band.image * y.input + input_row) * x.input)];
      for (int tap_x = 0; tap_x < x.filter; ++tap_x) {
        const int shift = tap_x * x.dilation - x.padding;
        const int first = shift < 0 ? (-shift + x.stride - 1) / x.stride : 0;
        for (int column = first; column < x.output && column * x.stride + shift < x.input; ++column) {
          sums[column] += line[column * x.stride + shift];
        }
      }
    }
  }
}

bool Int8Convolution::fits(const NodeFacts& node) {
  return has_known_form(node) && window_of(node.inputs[1]) <= kMaxValues;
}

Int8Convolution::Int8Convolution(const NodeFacts& node, const Kernel& kernel)
    : kernel_(kernel.quantized), input_zero_(static_cast<std::int8_t>(node.inputs[0].zero_point)), output_(node) {
  const TensorFacts& filter = node.inputs[1];
  Geometry geometry = geometry_of(node);
  geometry.pixel_words = filter.dims[3];
  geometry.staged_bytes = kernel_.bytes_per_value;
  geometry.chunk_words = kMaxValues;
  set_geometry(geometry);
  const auto* weights = filter.data<std::int8_t>();
  weights_.assign(weights, weights + element_count(filter.dims));
  for (int channel = 0; channel < filter.dims[0]; ++channel) {
    const auto first = weights_.begin() + channel * static_cast<std::ptrdiff_t>(window_of(filter));
    const std::int32_t sum = std::accumulate(first, first + static_cast<std::ptrdiff_t>(window_of(filter)), 0);
    bias_.push_back(*output_.bias(channel) - (input_zero_ + kernel_.value_offset) * sum);
  }
  bias_.resize(bias_.size() + kTileChannels);
}

std::vector<Dims> Int8Convolution::prepare(const std::vector<Dims>& inputs) {
  require(inputs[0].size() == 4 && inputs[0][3] == geometry().pixel_words,
          "the input of a convolution does not have the channels of its filter; check the input's shape");
  std::uint8_t padding[sizeof(std::int16_t)];
  kernel_.stage_values(&input_zero_, 1, padding);
  const Dims output = set_input_size(inputs[0], padding);
  if (!filters_are_packed()) pack_filters(kernel_.pack_values, weights_.data());
  return {output};
}

void Int8Convolution::run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                          ThreadPool& pool) {
  const auto* input = static_cast<const std::int8_t*>(inputs[0]);
  const std::size_t row_values =
      static_cast<std::size_t>(columns().input) * static_cast<std::size_t>(geometry().pixel_words);
  const auto stage = [&](int image, int row, std::uint8_t* staged, int pixels) {
    const auto line = static_cast<std::size_t>(image * rows().input + row);
    kernel_.stage_values(input + line * row_values, pixels * geometry().pixel_words, staged);
  };
  auto* output = static_cast<std::int8_t*>(outputs[0]);
  for_each_band(stage, [&](const Band& band) {
    for_each_tile(band, pool, true, [&](const Block& block, const Tile& tile) { run_tile(block, tile, output); });
  });
}

void Int8Convolution::run_tile(const Block& block, const Tile& tile, std::int8_t* output) const {
  TileTimer timer(times, tile.in_band / kTilePixels);
  const auto channels_out = static_cast<std::size_t>(geometry().channels_out);
  const auto channel = static_cast<std::size_t>(block.first_channel);
  std::int8_t* values = output + static_cast<std::size_t>(tile.first_pixel) * channels_out + channel;
  const Requantization to = output_.requantization(block.first_channel);
  with_tile(0, block, tile, [&](const auto* pixels, const Run* runs, int run_count, const auto* filters) {
    kernel_.multiply(pixels, runs, run_count, filters, &bias_[channel], to,
                     {tile.pixels, block.channels, channels_out, values});
  });
  timer.counted();
}

}  // namespace binvpr
