// SPDX-License-Identifier: Apache-2.0
#include "surroundings.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "pool.h"
#include "shortcuts.h"

namespace binvpr {
namespace {

using tflite_abi::kFloat32;
using tflite_abi::kInt32;
using tflite_abi::kInt8;
using tflite_abi::kUInt8;

constexpr std::size_t kMostParts = 16;  // of a concatenation
constexpr int kMostBlock = 16;
constexpr std::int64_t kMostPooled = 1 << 23;  // int8 values of a window, whose sum and half of whose number fit an int32

class AveragePool : public Pool {
 public:
  using Pool::Pool;

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    auto* output = static_cast<float*>(outputs[0]);
    for_each_window(static_cast<const float*>(inputs[0]), [&](const float* data, int rows, int columns) {
      const auto count = static_cast<float>(rows * columns);
      for_each_block<float>(data, rows, columns, [&](std::size_t first, std::size_t length, const float* sums) {
        float* to = output + first;
        // By a power of two, a product with its inverse is the same.
        if ((rows * columns & (rows * columns - 1)) == 0) {
          const float inverse = 1 / count;
          for (std::size_t i = 0; i < length; ++i) to[i] = sums[i] * inverse;
        } else {
          for (std::size_t i = 0; i < length; ++i) to[i] = sums[i] / count;
        }
      });
      output += channels();
    });
  }
};

// The same of int8, rounded half away from zero as TFLite rounds.
class Int8AveragePool : public Pool {
 public:
  using Pool::Pool;

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    auto* output = static_cast<std::int8_t*>(outputs[0]);
    for_each_window(static_cast<const std::int8_t*>(inputs[0]), [&](const std::int8_t* data, int rows, int columns) {
      const int count = rows * columns;
      for_each_block<std::int32_t>(data, rows, columns, [&](std::size_t first, std::size_t length, const std::int32_t* sums) {
        const auto round = [to = output + first, length, sums](auto divisor) {
          const int half = divisor / 2;
          for (std::size_t i = 0; i < length; ++i) {
            to[i] = static_cast<std::int8_t>((sums[i] + (sums[i] > 0 ? half : -half)) / divisor);
          }
        };
        // A division by what the compiler knows takes a tenth of the time.
        count == 4 ? round(std::integral_constant<int, 4>()) : round(count);
      });
      output += channels();
    });
  }
};

// SPACE_TO_DEPTH of int8: the pixels of a block, row by row, become the channels of one.
class SpaceToDepth : public Operator {
 public:
  explicit SpaceToDepth(int side) : side_(side) {}

  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override {
    const Dims& flat = inputs[0];
    require(flat.size() == 4 && flat[1] % side_ == 0 && flat[2] % side_ == 0,
            "the size of an image does not fit the block of a SPACE_TO_DEPTH before Larq operators; check the input's shape");
    element_count(flat);  // so that the product fits an int
    const Dims deep = {flat[0], flat[1] / side_, flat[2] / side_, flat[3] * side_ * side_};
    rows_ = static_cast<std::size_t>(deep[0]) * static_cast<std::size_t>(deep[1]);
    columns_ = static_cast<std::size_t>(deep[2]);
    run_ = static_cast<std::size_t>(side_) * static_cast<std::size_t>(flat[3]);
    return {deep};
  }

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    const auto* input = static_cast<const std::int8_t*>(inputs[0]);
    auto* output = static_cast<std::int8_t*>(outputs[0]);
    const std::size_t side = static_cast<std::size_t>(side_), columns = columns_, run = run_;
    for (std::size_t row = 0; row < rows_; ++row, output += columns * side * run) {
      for (std::size_t down = 0; down < side; ++down) {
        std::int8_t* to = output + down * run;
        // A copy of what the compiler knows is a load and a store.
        if (run == 4) {
          for (std::size_t column = 0; column < columns; ++column, input += 4, to += side * 4) std::copy_n(input, 4, to);
          continue;
        }
        for (std::size_t column = 0; column < columns; ++column, input += run, to += side * run) std::copy_n(input, run, to);
      }
    }
  }

 private:
  int side_;
  std::size_t rows_ = 0, columns_ = 0, run_ = 0;
};

// QUANTIZE of uint8 to int8 that only moves the zero point by 128.
class FlipSigns : public Operator {
 public:
  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override {
    count_ = element_count(inputs[0]);
    return {inputs[0]};
  }

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    const auto* input = static_cast<const std::uint8_t*>(inputs[0]);
    auto* output = static_cast<std::uint8_t*>(outputs[0]);
    const std::size_t count = count_;  // bytes that are written might be the member
    for (std::size_t i = 0; i < count; ++i) output[i] = input[i] ^ 0x80;
  }

 private:
  std::size_t count_ = 0;
};

// DEQUANTIZE of int8.
class ToFloat : public Operator {
 public:
  explicit ToFloat(const TensorFacts& input) : scale_(input.scale), zero_point_(input.zero_point) {}

  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override {
    count_ = element_count(inputs[0]);
    return {inputs[0]};
  }

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    const auto* input = static_cast<const std::int8_t*>(inputs[0]);
    auto* output = static_cast<float*>(outputs[0]);
    const float scale = scale_;  // floats that are written might be the member
    for (std::size_t i = 0; i < count_; ++i) output[i] = static_cast<float>(input[i] - zero_point_) * scale;
  }

 private:
  float scale_;
  int zero_point_;
  std::size_t count_ = 0;
};

bool is_image(const TensorFacts& tensor, tflite_abi::Type type) {
  return tensor.present && tensor.type == type && tensor.constant == nullptr && tensor.dims.size() == 4;
}

bool have_equal_values(const TensorFacts& one, const TensorFacts& other) {
  return one.is_quantized && other.is_quantized && one.scale == other.scale && one.zero_point == other.zero_point;
}

const std::int32_t* channel_padding(const NodeFacts& node) {
  if (node.inputs.size() != 2 || !is_image(node.inputs[0], kFloat32)) return nullptr;
  const TensorFacts& paddings = node.inputs[1];
  if (!paddings.present || paddings.type != kInt32 || paddings.dims != Dims{4, 2}) return nullptr;
  const auto* values = paddings.data<std::int32_t>();
  if (values == nullptr || std::any_of(values, values + 6, [](std::int32_t size) { return size != 0; })) return nullptr;
  const auto fits = [](std::int32_t size) { return size >= 0 && size < 1 << 20; };
  return fits(values[6]) && fits(values[7]) ? values + 6 : nullptr;
}

template <typename T>
struct Kind {
  using Type = T;
};

template <typename Options>
const Options* options_of(const NodeFacts& node) {
  return static_cast<const Options*>(node.builtin_options);
}

std::unique_ptr<Operator> make_add(const NodeFacts& node, const Kernel& kernel) {
  const auto* options = options_of<tflite_abi::AddParams>(node);
  const bool fits = node.inputs.size() == 2 && is_image(node.inputs[0], kFloat32) && is_image(node.inputs[1], kFloat32) &&
                    node.inputs[0].dims == node.inputs[1].dims && options != nullptr &&
                    options->activation == tflite_abi::kActNone;
  return fits ? std::make_unique<Addition>(kernel) : nullptr;
}

std::unique_ptr<Operator> make_pool(const NodeFacts& node) {
  const auto* options = options_of<tflite_abi::PoolParams>(node);
  if (node.inputs.size() != 1 || options == nullptr || options->activation != tflite_abi::kActNone ||
      (options->padding != tflite_abi::kPaddingSame && options->padding != tflite_abi::kPaddingValid)) {
    return nullptr;
  }
  const auto make = [&](auto kind) -> std::unique_ptr<Operator> {
    return std::make_unique<typename decltype(kind)::Type>(options->filter_height, options->filter_width,
                                                           options->stride_height, options->stride_width,
                                                           options->padding == tflite_abi::kPaddingSame);
  };
  if (is_image(node.inputs[0], kFloat32)) return make(Kind<AveragePool>());
  const bool fits = is_image(node.inputs[0], kInt8) && have_equal_values(node.inputs[0], node.outputs[0]) &&
                    std::int64_t{options->filter_height} * options->filter_width <= kMostPooled;
  return fits ? make(Kind<Int8AveragePool>()) : nullptr;
}

std::unique_ptr<Operator> make_concatenation(const NodeFacts& node) {
  const auto* options = options_of<tflite_abi::ConcatenationParams>(node);
  if (options == nullptr || (options->axis != -1 && options->axis != 3) || options->activation != tflite_abi::kActNone ||
      node.inputs.size() > kMostParts) {
    return nullptr;
  }
  const bool alike = std::all_of(node.inputs.begin(), node.inputs.end(), [&](const TensorFacts& part) {
    return is_image(part, kFloat32) && part.dims == node.inputs[0].dims;
  });
  return alike ? std::make_unique<ConcatenateChannels>() : nullptr;
}

std::unique_ptr<Operator> make_rearrangement(const NodeFacts& node) {
  const auto* options = options_of<tflite_abi::BlockParams>(node);
  if (node.inputs.size() != 1 || options == nullptr || options->block_size < 1 || options->block_size > kMostBlock) return nullptr;
  const int side = options->block_size;
  const Dims& dims = node.inputs[0].dims;
  if (node.builtin == tflite_abi::kSpaceToDepth) {
    const bool fits = is_image(node.inputs[0], kInt8) && have_equal_values(node.inputs[0], node.outputs[0]);
    return fits ? std::make_unique<SpaceToDepth>(side) : nullptr;
  }
  const bool fits = is_image(node.inputs[0], kFloat32) && dims[3] % (side * side) == 0;
  return fits ? std::make_unique<DepthToSpace>(side) : nullptr;
}

std::unique_ptr<Operator> make_conversion(const NodeFacts& node, const Kernel& kernel) {
  if (node.inputs.size() != 1) return nullptr;
  const TensorFacts &input = node.inputs[0], &output = node.outputs[0];
  if (node.builtin == tflite_abi::kDequantize) {
    const bool fits = is_image(input, kInt8) && input.is_quantized && input.channel_scales.size() == 1 && is_int8(input.zero_point) &&
                      output.type == kFloat32;
    return fits ? std::make_unique<ToFloat>(input) : nullptr;
  }
  if (input.type == kFloat32) {
    const bool fits = is_image(input, kFloat32) && output.type == kInt8 && output.is_quantized && output.scale > 0 &&
                      output.channel_scales.size() == 1 && is_int8(output.zero_point);
    return fits ? std::make_unique<FloatToInt8>(output, kernel) : nullptr;
  }
  const bool flips = is_image(input, kUInt8) && input.is_quantized && output.type == kInt8 && output.is_quantized &&
                     input.scale == output.scale && is_int8(output.zero_point) &&
                     input.zero_point == output.zero_point + 128;
  return flips ? std::make_unique<FlipSigns>() : nullptr;
}

}  // namespace

Place place_of(const NodeFacts& node) {
  switch (node.builtin) {
    case tflite_abi::kAdd:
    case tflite_abi::kDequantize:
      return Place::kBehind;
    case tflite_abi::kAveragePool2d:
      return !node.inputs.empty() && node.inputs[0].type == kInt8 ? Place::kBehind : Place::kBetween;
    case tflite_abi::kQuantize:
      return !node.inputs.empty() && node.inputs[0].type == tflite_abi::kFloat32 ? Place::kBetween : Place::kBefore;
    case tflite_abi::kSpaceToDepth:
      return Place::kBefore;
    case tflite_abi::kConcatenation:
    case tflite_abi::kDepthToSpace:
    case tflite_abi::kPad:
      return Place::kBetween;
    default:
      return Place::kNowhere;
  }
}

std::unique_ptr<Operator> make_surrounding(const NodeFacts& node, const Kernel& kernel) {
  if (node.inputs.empty() || node.outputs.size() != 1) return nullptr;
  if (node.builtin == tflite_abi::kDequantize || node.builtin == tflite_abi::kQuantize) return make_conversion(node, kernel);
  if (node.inputs[0].type != node.outputs[0].type) return nullptr;  // the output's memory is for another type
  switch (node.builtin) {
    case tflite_abi::kAdd:
      return make_add(node, kernel);
    case tflite_abi::kAveragePool2d:
      return make_pool(node);
    case tflite_abi::kConcatenation:
      return make_concatenation(node);
    case tflite_abi::kDepthToSpace:
    case tflite_abi::kSpaceToDepth:
      return make_rearrangement(node);
    case tflite_abi::kPad:
      return channel_padding(node) != nullptr ? std::make_unique<PadChannels>(channel_padding(node)) : nullptr;
    default:
      return nullptr;
  }
}

}  // namespace binvpr
