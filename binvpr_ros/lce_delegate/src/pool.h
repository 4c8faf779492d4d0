// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "operator.h"

namespace binvpr {

// A window over an image [N,H,W,C]; places outside the image do not count.
class Pool : public Operator {
 public:
  Pool(int filter_height, int filter_width, int stride_height, int stride_width, bool same)
      : height_{filter_height, stride_height}, width_{filter_width, stride_width}, same_(same) {
    Axis(1, filter_height, stride_height, 1, true), Axis(1, filter_width, stride_width, 1, true);  // checked at load
  }

  std::vector<Dims> prepare(const std::vector<Dims>& inputs) override {
    require(inputs[0].size() == 4, "a pooling beside Larq operators must have 4 dimensions; check the input's shape");
    element_count(inputs[0]);
    input_ = inputs[0];
    axes_.clear();
    axes_.emplace_back(input_[1], height_.filter, height_.stride, 1, same_);
    axes_.emplace_back(input_[2], width_.filter, width_.stride, 1, same_);
    return {{input_[0], axes_[0].output, axes_[1].output, input_[3]}};
  }

 protected:
  // Calls visit(window's first pixel's data, rows, columns) for each output pixel in order; data in elements.
  template <typename T, typename Visit>
  void for_each_window(const T* data, Visit visit) const {
    const Axis &y = axes_[0], &x = axes_[1];
    for (int image = 0; image < input_[0]; ++image) {
      for (int row = 0; row < y.output; ++row) {
        const int top = row * y.stride - y.padding;
        const int rows = std::min(top + y.filter, y.input) - std::max(top, 0);
        for (int column = 0; column < x.output; ++column) {
          const int left = column * x.stride - x.padding;
          const int columns = std::min(left + x.filter, x.input) - std::max(left, 0);
          const std::size_t pixel = (static_cast<std::size_t>(image) * static_cast<std::size_t>(y.input) +
                                     static_cast<std::size_t>(std::max(top, 0))) *
                                        static_cast<std::size_t>(x.input) +
                                    static_cast<std::size_t>(std::max(left, 0));
          visit(data + pixel * channels(), rows, columns);
        }
      }
    }
  }

  // Calls visit(first channel, channels, their sums) for blocks of channels of a window.
  template <typename Sum, typename T, typename Visit>
  void for_each_block(const T* window, int rows, int columns, Visit visit) const {
    constexpr std::size_t kBlock = 64;  // whose sums stay in registers
    const std::size_t step = channels(), row_step = row_size();
    for (std::size_t first = 0; first < step; first += kBlock) {
      const std::size_t length = std::min(kBlock, step - first);
      Sum sums[kBlock] = {};
      for (int row = 0; row < rows; ++row) {
        const T* value = window + static_cast<std::size_t>(row) * row_step + first;
        for (int column = 0; column < columns; ++column, value += step) {
          for (std::size_t i = 0; i < length; ++i) sums[i] += value[i];
        }
      }
      visit(first, length, sums);
    }
  }

  std::size_t channels() const { return static_cast<std::size_t>(input_[3]); }
  std::size_t row_size() const { return static_cast<std::size_t>(input_[2]) * channels(); }

 private:
  struct Side {
    int filter, stride;
  };
  Side height_, width_;
  bool same_;
  Dims input_;
  std::vector<Axis> axes_;
};

}  // namespace binvpr
