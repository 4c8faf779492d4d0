// SPDX-License-Identifier: Apache-2.0
// Larq's operators beside the convolution: packing and unpacking of bits, and max pooling.
#include <algorithm>
#include <cmath>
#include <limits>

#include "convolution.h"
#include "int8_convolution.h"
#include "operator.h"
#include "options.h"
#include "pool.h"
#include "surroundings.h"

namespace binvpr {
namespace {

using tflite_abi::kBool;
using tflite_abi::kFloat32;
using tflite_abi::kInt32;
using tflite_abi::kInt8;

void require_one_to_one(const NodeFacts& node) {
  require(node.inputs.size() == 1 && node.outputs.size() == 1 && node.inputs[0].present &&
              node.inputs[0].constant == nullptr,
          node.name + " must have 1 input, not constant, and 1 output; convert the model again");
  require(!node.inputs[0].dims.empty() && node.inputs[0].dims.size() == node.outputs[0].dims.size(),
          "the input and output of " + node.name + " must have the same rank; convert the model again");
}

OptionTaker options_of(const NodeFacts& node) { return {node.name, node.custom_options, node.custom_options_size}; }

// LceQuantize: the sign of each value, 32 along the last dimension to a word; bit 1 where value < zero point.
class Quantize : public Operator {
 public:
  Quantize(const NodeFacts& node, const Kernel& kernel) : kernel_(kernel) {
    options_of(node).require_none_left();
    require_one_to_one(node);
    type_ = node.inputs[0].type;
    zero_point_ = node.inputs[0].zero_point;
    require(type_ == kFloat32 || type_ == kInt8 || type_ == kBool,
            "the input of LceQuantize must be float32, int8 or bool; convert the model again");
    require(node.outputs[0].type == kInt32, "the output of LceQuantize must be int32; convert the model again");
  }

  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override {
    Dims packed = inputs[0];
    require(!packed.empty(), "the input of LceQuantize has no dimensions; check the input's shape");
    rows_ = element_count(packed) / static_cast<std::size_t>(packed.back());
    columns_ = packed.back();
    packed.back() = words_for(columns_);
    return {packed};
  }

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    auto* words = static_cast<std::int32_t*>(outputs[0]);
    // Rows of whole words follow each other without a gap.
    const bool gapless = columns_ % kWordBits == 0;
    const std::size_t rows = gapless ? 1 : rows_;
    const int columns = gapless ? static_cast<int>(rows_) * columns_ : columns_;
    for (std::size_t row = 0; row < rows; ++row, words += words_for(columns)) {
      const std::size_t at = row * static_cast<std::size_t>(columns);
      if (type_ == kFloat32) {
        kernel_.pack_float(static_cast<const float*>(inputs[0]) + at, columns, words);
      } else if (type_ == kInt8) {
        pack_int8(static_cast<const std::int8_t*>(inputs[0]) + at, columns, words);
      } else {
        pack_bool(static_cast<const std::uint8_t*>(inputs[0]) + at, columns, words);
      }
    }
  }

 private:
  void pack_int8(const std::int8_t* values, int columns, std::int32_t* words) const {
    if (zero_point_ <= std::numeric_limits<std::int8_t>::max()) {
      const int least = std::max<int>(zero_point_, std::numeric_limits<std::int8_t>::min());
      kernel_.pack_int8(values, columns, static_cast<std::int8_t>(least), words);
      return;
    }
    for (int start = 0; start < columns; start += kWordBits) {  // every value is below
      const int missing = std::max(0, start + kWordBits - columns);
      words[start / kWordBits] = static_cast<std::int32_t>(~std::uint32_t{0} >> missing);
    }
  }

  // true stands for +1, which is bit 0.
  static void pack_bool(const std::uint8_t* values, int columns, std::int32_t* words) {
    for (int start = 0; start < columns; start += kWordBits) {
      std::uint32_t word = 0;
      for (int i = 0; i < std::min(kWordBits, columns - start); ++i) {
        word |= static_cast<std::uint32_t>(values[start + i] == 0) << i;
      }
      words[start / kWordBits] = static_cast<std::int32_t>(word);
    }
  }

  const Kernel& kernel_;
  tflite_abi::Type type_;
  int zero_point_;
  std::size_t rows_ = 0;
  int columns_ = 0;
};

// LceDequantize: bits back to +1 and -1.
class Dequantize : public Operator {
 public:
  explicit Dequantize(const NodeFacts& node) {
    options_of(node).require_none_left();
    require_one_to_one(node);
    const TensorFacts& output = node.outputs[0];
    type_ = output.type;
    columns_ = output.dims.back();
    require(node.inputs[0].type == kInt32, "the input of LceDequantize must be int32; convert the model again");
    require(type_ == kFloat32 || type_ == kInt8 || type_ == kBool,
            "the output of LceDequantize must be float32, int8 or bool; convert the model again");
    require(columns_ > 0, "the output of LceDequantize has no channels; convert the model again");
    if (type_ == kInt8) {
      require(output.scale > 0, "the int8 output of LceDequantize has no scale; convert the model again");
      const float one = std::min(std::round(1.0F / output.scale), 512.0F);  // more saturates all the same
      plus_ = saturate(output.zero_point + static_cast<std::int64_t>(one));
      minus_ = saturate(output.zero_point - static_cast<std::int64_t>(one));
    }
  }

  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override {
    Dims unpacked = inputs[0];
    require(!unpacked.empty() && unpacked.back() == words_for(columns_),
            "the channels of LceDequantize do not fit its packed input; check the input's shape");
    unpacked.back() = columns_;
    rows_ = element_count(unpacked) / static_cast<std::size_t>(columns_);
    return {unpacked};
  }

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    const auto* words = static_cast<const std::int32_t*>(inputs[0]);
    if (type_ == kFloat32) {
      unpack(words, static_cast<float*>(outputs[0]), 1.0F, -1.0F);
    } else if (type_ == kInt8) {
      unpack(words, static_cast<std::int8_t*>(outputs[0]), plus_, minus_);
    } else {
      unpack(words, static_cast<bool*>(outputs[0]), true, false);
    }
  }

 private:
  static std::int8_t saturate(std::int64_t value) {
    return static_cast<std::int8_t>(std::max<std::int64_t>(-128, std::min<std::int64_t>(127, value)));
  }

  template <typename T>
  void unpack(const std::int32_t* words, T* values, T plus, T minus) const {
    for (std::size_t row = 0; row < rows_; ++row, words += words_for(columns_)) {
      for (int i = 0; i < columns_; ++i) *values++ = words[i / kWordBits] >> i % kWordBits & 1 ? minus : plus;
    }
  }

  tflite_abi::Type type_;
  int columns_;
  std::int8_t plus_ = 1, minus_ = -1;
  std::size_t rows_ = 0;
};

// LceBMaxPool2d: -1 (bit 1) only where the whole window is -1.
class MaxPool : public Pool {
 public:
  static std::unique_ptr<Operator> make(const NodeFacts& node) {
    OptionTaker options = options_of(node);
    const int filter_height = options.take("filter_height"), filter_width = options.take("filter_width");
    const int stride_height = options.take("stride_height"), stride_width = options.take("stride_width");
    const bool same_padding = options.take_same_padding();
    options.require_none_left();
    require_one_to_one(node);
    require(node.inputs[0].type == kInt32 && node.outputs[0].type == kInt32 && node.inputs[0].dims.size() == 4,
            "the input and output of LceBMaxPool2d must be int32 in 4 dimensions; convert the model again");
    return std::make_unique<MaxPool>(filter_height, filter_width, stride_height, stride_width, same_padding);
  }

  using Pool::Pool;

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    auto* output = static_cast<std::int32_t*>(outputs[0]);
    for_each_window(static_cast<const std::int32_t*>(inputs[0]), [&](const std::int32_t* data, int rows, int columns) {
      std::fill(output, output + channels(), ~0);
      for (int row = 0; row < rows; ++row, data += row_size()) {
        const std::int32_t* value = data;
        for (int column = 0; column < columns; ++column) {
          for (std::size_t c = 0; c < channels(); ++c) output[c] &= *value++;
        }
      }
      output += channels();
    });
  }
};

}  // namespace

bool is_larq(const NodeFacts& node) {
  return node.builtin == tflite_abi::kCustom && node.name.compare(0, 3, "Lce") == 0;
}

bool is_int8_layer(const NodeFacts& node) { return LevelConvolution::fits(node) || Int8Convolution::fits(node); }

std::string name_of(const NodeFacts& node) {
  switch (node.builtin) {
    case tflite_abi::kAdd:
      return "ADD";
    case tflite_abi::kAveragePool2d:
      return "AVERAGE_POOL_2D";
    case tflite_abi::kConcatenation:
      return "CONCATENATION";
    case tflite_abi::kConv2d:
      return LevelConvolution::fits(node) ? "CONV_2D of 4 bits" : "CONV_2D of 8 bits";
    case tflite_abi::kDepthToSpace:
      return "DEPTH_TO_SPACE";
    case tflite_abi::kDequantize:
      return "DEQUANTIZE";
    case tflite_abi::kPad:
      return "PAD";
    case tflite_abi::kQuantize:
      return "QUANTIZE";
    case tflite_abi::kSpaceToDepth:
      return "SPACE_TO_DEPTH";
    default:
      return node.name;
  }
}

std::unique_ptr<Operator> make_operator(const NodeFacts& node, const Kernel& kernel) {
  if (node.builtin == tflite_abi::kConv2d) {
    if (LevelConvolution::fits(node)) return std::make_unique<LevelConvolution>(node, kernel);
    return std::make_unique<Int8Convolution>(node, kernel);
  }
  if (node.builtin != tflite_abi::kCustom) return make_surrounding(node, kernel);
  if (node.name == "LceBconv2d") return std::make_unique<BinaryConvolution>(node, kernel);
  if (node.name == "LceQuantize") return std::make_unique<Quantize>(node, kernel);
  if (node.name == "LceDequantize") return std::make_unique<Dequantize>(node);
  if (node.name == "LceBMaxPool2d") return MaxPool::make(node);
  throw Refusal("the operator " + node.name + " is unknown; use a newer version of this package");
}

}  // namespace binvpr
