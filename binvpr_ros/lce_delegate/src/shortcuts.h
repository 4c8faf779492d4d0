// SPDX-License-Identifier: Apache-2.0
// TFLite's own operators of floats behind binary layers: of which a shortcut's way past them consists, and what ends it.
#pragma once

#include <algorithm>
#include <vector>

#include "operator.h"

namespace binvpr {

// ADD of two equal shapes.
class Addition : public Operator {
 public:
  explicit Addition(const Kernel& kernel) : kernel_(kernel) {}

  // Each pixel of the first input stands for a square of so many a side of the second.
  void enlarge_first(int side) { side_ = side; }

  bool can_pack() const override { return !packs_; }
  void also_pack() override { packs_ = true; }

  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override {
    const Dims &first = inputs[0], &whole = inputs[1];
    require(first.size() == 4 && whole.size() == 4 && first[0] == whole[0] && first[1] == whole[1] / side_ &&
                first[2] == whole[2] / side_ && whole[1] % side_ == 0 && whole[2] % side_ == 0 && first[3] == whole[3],
            "the two sides of a shortcut's addition have different shapes; check the input's shape");
    element_count(whole);
    rows_ = whole[0] * whole[1];
    columns_ = whole[2];
    channels_ = whole[3];
    Dims packed = whole;
    packed[3] = words_for(channels_);
    if (packs_) return {whole, packed};
    return {whole};
  }

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    const auto *first = static_cast<const float*>(inputs[0]), *second = static_cast<const float*>(inputs[1]);
    auto* sum = static_cast<float*>(outputs[0]);
    auto* words = static_cast<std::int32_t*>(packs_ ? outputs[1] : nullptr);
    const auto channels = static_cast<std::size_t>(channels_);
    std::vector<float> unread(sum == nullptr ? channels : 0);
    for (int row = 0; row < rows_; ++row) {
      const float* line = first + static_cast<std::size_t>(row / side_ * (columns_ / side_)) * channels;
      for (int column = 0; column < columns_; ++column, second += channels) {
        const float* pixel = line + static_cast<std::size_t>(column / side_) * channels;
        float* to = sum == nullptr ? unread.data() : sum;
        for (std::size_t c = 0; c < channels; ++c) to[c] = pixel[c] + second[c];
        if (sum != nullptr) sum += channels;
        if (words == nullptr) continue;
        kernel_.pack_float(to, channels_, words);
        words += words_for(channels_);
      }
    }
  }

  bool may_replace_second_input() const override { return true; }

 private:
  const Kernel& kernel_;
  int side_ = 1;
  bool packs_ = false;
  int rows_ = 0, columns_ = 0, channels_ = 0;  // rows of all images
};

// PAD with zeros, of the last dimension alone: the shortcut into a wider layer.
class PadChannels : public Operator {
 public:
  explicit PadChannels(const std::int32_t* last) : before_(last[0]), after_(last[1]) {}

  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override {
    Dims padded = inputs[0];
    require(padded.size() == 4, "a padding beside Larq operators must have 4 dimensions; check the input's shape");
    channels_ = padded.back();
    rows_ = element_count(padded) / static_cast<std::size_t>(channels_);
    padded.back() += before_ + after_;
    element_count(padded);
    return {padded};
  }

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    const auto* input = static_cast<const float*>(inputs[0]);
    auto* output = static_cast<float*>(outputs[0]);
    for (std::size_t row = 0; row < rows_; ++row, input += channels_) {
      output = std::fill_n(output, before_, 0.0F);
      output = std::copy_n(input, channels_, output);
      output = std::fill_n(output, after_, 0.0F);
    }
  }

 private:
  int before_, after_;
  int channels_ = 0;
  std::size_t rows_ = 0;
};

// CONCATENATION of the channels of images with as many each: most often of one with itself, the shortcut into a layer of
// several times as many.
class ConcatenateChannels : public Operator {
 public:
  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override {
    const auto fits = [&](const Dims& dims) { return dims.size() == 4 && dims == inputs[0]; };
    require(std::all_of(inputs.begin(), inputs.end(), fits),
            "the parts of a concatenation beside Larq operators differ in shape; check the input's shape");
    Dims whole = inputs[0];
    channels_ = static_cast<std::size_t>(whole.back());
    rows_ = element_count(whole) / channels_;
    const auto parts = static_cast<int>(inputs.size());
    element_count({whole[0], whole[1], whole[2], whole[3], parts});  // before the product, which might not fit an int
    whole.back() *= parts;
    return {whole};
  }

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    auto* output = static_cast<float*>(outputs[0]);
    for (std::size_t row = 0; row < rows_; ++row) {
      for (const void* input : inputs) output = std::copy_n(static_cast<const float*>(input) + row * channels_, channels_, output);
    }
  }

 private:
  std::size_t channels_ = 0, rows_ = 0;
};

// DEPTH_TO_SPACE: of each pixel's channels the first part becomes its upper left pixel, the next the one to its right.
class DepthToSpace : public Operator {
 public:
  explicit DepthToSpace(int side) : side_(side) {}

  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override {
    const Dims& deep = inputs[0];
    require(deep.size() == 4 && deep[3] % (side_ * side_) == 0,
            "the channels of a DEPTH_TO_SPACE beside Larq operators do not fit its block; check the input's shape");
    element_count(deep);
    rows_ = static_cast<std::size_t>(deep[0]) * static_cast<std::size_t>(deep[1]);
    columns_ = static_cast<std::size_t>(deep[2]);
    channels_ = static_cast<std::size_t>(deep[3] / (side_ * side_));
    return {{deep[0], deep[1] * side_, deep[2] * side_, deep[3] / (side_ * side_)}};
  }

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    const auto* input = static_cast<const float*>(inputs[0]);
    auto* output = static_cast<float*>(outputs[0]);
    const std::size_t side = static_cast<std::size_t>(side_), run = side * channels_;
    for (std::size_t row = 0; row < rows_; ++row, input += columns_ * side * run) {
      for (std::size_t down = 0; down < side; ++down) {
        for (std::size_t column = 0; column < columns_; ++column) {
          output = std::copy_n(input + (column * side + down) * run, run, output);
        }
      }
    }
  }

  int side() const { return side_; }

 private:
  int side_;
  std::size_t rows_ = 0, columns_ = 0, channels_ = 0;
};

// QUANTIZE of floats to int8, rounded as XNNPACK rounds.
class FloatToInt8 : public Operator {
 public:
  FloatToInt8(const TensorFacts& output, const Kernel& kernel)
      : kernel_(kernel), inverse_scale_(1 / output.scale), zero_point_(output.zero_point) {}

  float inverse_scale() const { return inverse_scale_; }
  int zero_point() const { return zero_point_; }

  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override {
    count_ = element_count(inputs[0]);
    return {inputs[0]};
  }

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& /*pool*/) override {
    kernel_.quantize(static_cast<const float*>(inputs[0]), count_, inverse_scale_, zero_point_,
                     static_cast<std::int8_t*>(outputs[0]));
  }

 private:
  const Kernel& kernel_;
  float inverse_scale_;
  int zero_point_;
  std::size_t count_ = 0;
};

}  // namespace binvpr
