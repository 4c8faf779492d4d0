// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "refusal.h"
#include "tflite_abi.h"

namespace binvpr {

using Dims = std::vector<int>;

// The number of elements of a tensor. Refuses empty tensors and those of 2^30 elements and more, so that sizes in bytes
// and offsets fit an int32 and products of a few of them an int64.
inline std::size_t element_count(const Dims& dims) {
  std::size_t count = 1;
  for (const int size : dims) {
    require(size > 0, "a tensor of a Larq operator is empty or has a negative size; check the input's shape");
    count *= static_cast<std::size_t>(size);
    require(count < std::size_t{1} << 30, "a tensor of a Larq operator is too large; check the input's shape");
  }
  return count;
}

// What an operator needs to know of a tensor when the graph is read.
struct TensorFacts {
  tflite_abi::Type type{};
  Dims dims;
  float scale = 0;
  int zero_point = 0;
  bool is_quantized = false;
  std::vector<float> channel_scales;  // of quantized weights
  int channel_axis = 0;
  int levels = 0;  // values are zero_point ... zero_point + levels - 1; 0: not known
  const void* constant = nullptr;  // the data of a weight, which live as long as the model
  bool present = false;            // optional inputs may be absent

  template <typename T>
  const T* data() const {
    return static_cast<const T*>(constant);
  }
};

inline bool is_int8(int value) { return value >= -128 && value <= 127; }

inline std::size_t bytes_of(tflite_abi::Type type) {
  return type == tflite_abi::kFloat32 || type == tflite_abi::kInt32 ? 4 : 1;
}

// Memory that begins at a cache line and is zero at first.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;

  explicit AlignedBuffer(std::size_t size) {
    const std::size_t whole = (size + kAlignment) / kAlignment * kAlignment;
    data_.reset(static_cast<std::uint8_t*>(std::aligned_alloc(kAlignment, whole)));
    require(data_ != nullptr, "there is not enough memory for a Larq operator; use a smaller input");
    std::memset(data_.get(), 0, whole);
  }

  std::uint8_t* data() const { return data_.get(); }

 private:
  static constexpr std::size_t kAlignment = 64;
  struct Free {
    void operator()(std::uint8_t* data) const { std::free(data); }
  };
  std::unique_ptr<std::uint8_t, Free> data_;
};

// Where a window slides along one axis; SAME and VALID as TensorFlow defines them.
struct Axis {
  int input, filter, stride, dilation, output, padding;  // padding: before the first element

  Axis(int input_size, int filter_size, int step, int spread, bool same)
      : input(input_size), filter(filter_size), stride(step), dilation(spread) {
    require(filter > 0 && stride > 0 && dilation > 0 && filter < 1 << 15 && stride < 1 << 15 && dilation < 1 << 15,
            "a Larq operator has a filter, stride or dilation out of range; convert the model again");
    const int extent = (filter - 1) * dilation + 1;
    require(same || input >= extent, "the input is smaller than a filter of a Larq operator; use a larger input");
    output = same ? (input + stride - 1) / stride : (input - extent) / stride + 1;
    const int total = (output - 1) * stride + extent - input;
    padding = total > 0 ? total / 2 : 0;
  }

  // Elements of the padded input that windows cover: all of them, or the first `windows`.
  int covered() const { return covered_by(output); }
  int covered_by(int windows) const { return (windows - 1) * stride + (filter - 1) * dilation + 1; }
};

}  // namespace binvpr
