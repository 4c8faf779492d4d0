// SPDX-License-Identifier: Apache-2.0
// Models drawn at random: whole ones, damaged ones, and the flexbuffers in them. All follows from a seed.
#pragma once

#include <cmath>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <random>
#include <utility>

#include "fake_runtime.h"

namespace fake {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  std::uint64_t bits() { return engine_(); }
  int below(int end) { return static_cast<int>(engine_() % static_cast<std::uint64_t>(end)); }
  int between(int first, int last) { return first + below(last - first + 1); }
  std::size_t index(std::size_t size) { return static_cast<std::size_t>(engine_() % size); }
  bool one_in(int count) { return below(count) == 0; }
  float real() { return static_cast<float>(below(4001) - 2000) * 0.01F; }

  template <typename T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[index(choices.size())];
  }

 private:
  std::mt19937_64 engine_;
};

constexpr int kIntMin = std::numeric_limits<int>::min(), kIntMax = std::numeric_limits<int>::max();
using Options = std::map<std::string, int>;

inline void append(Bytes& bytes, std::uint64_t value, std::size_t width) {
  for (std::size_t i = 0; i < width; ++i) bytes.push_back(static_cast<std::uint8_t>(value >> 8 * i));
}

// A flexbuffer map, in any of the forms that a writer may choose.
inline Bytes encode(const Options& options, Random& random) {
  Bytes bytes;
  std::vector<std::size_t> names, indirect;
  for (const auto& option : options) {
    names.push_back(bytes.size());
    bytes.insert(bytes.end(), option.first.begin(), option.first.end());
    bytes.push_back(0);
  }
  const bool is_indirect = random.one_in(4);
  for (const auto& option : options) {
    indirect.push_back(bytes.size());
    if (is_indirect) append(bytes, static_cast<std::uint64_t>(option.second), 4);
  }
  const bool is_short = is_indirect || std::all_of(options.begin(), options.end(), [](const auto& option) {
                          return option.second >= -128 && option.second <= 127;
                        });
  const bool is_near = bytes.size() + 8 * options.size() < 256;  // so that offsets fit a byte
  const unsigned width_bits = is_short && is_near && random.one_in(2) ? 0 : is_short ? 1 : random.pick({2U, 3U});
  const std::size_t width = std::size_t{1} << width_bits;
  const auto key_width = random.pick<std::size_t>({is_near ? 1U : 2U, 2, 4, 8});
  append(bytes, options.size(), key_width);
  const std::size_t keys = bytes.size();
  for (const std::size_t name : names) append(bytes, bytes.size() - name, key_width);
  append(bytes, bytes.size() - keys, width);
  append(bytes, key_width, width);
  append(bytes, options.size(), width);
  const std::size_t values = bytes.size();
  std::size_t i = 0;
  for (const auto& option : options) {
    const auto value = static_cast<std::uint64_t>(std::int64_t{option.second});
    append(bytes, is_indirect ? bytes.size() - indirect[i++] : value, width);
  }
  for (std::size_t type = 0; type < options.size(); ++type) {
    bytes.push_back(static_cast<std::uint8_t>(is_indirect ? 6U << 2 | 2 : 1U << 2 | width_bits));
  }
  append(bytes, bytes.size() - values, 2);
  bytes.push_back(static_cast<std::uint8_t>(9U << 2 | width_bits));
  bytes.push_back(2);
  return bytes;
}

inline void damage(Bytes& bytes, Random& random) {
  if (bytes.empty()) {
    for (int left = random.below(40); left >= 0; --left) bytes.push_back(static_cast<std::uint8_t>(random.bits()));
    return;
  }
  const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(random.index(bytes.size()));
  const auto place = static_cast<std::size_t>(at - bytes.begin());
  switch (random.below(7)) {
    case 0:
      *at ^= static_cast<std::uint8_t>(1 << random.below(8));
      break;
    case 1:  // widths, small offsets and counts; 0 and the place itself are offsets to themselves and to the start
      *at = random.pick<std::uint8_t>({0, 1, 2, 3, 4, 8, 16, 0x7f, 0x80, 0xff, static_cast<std::uint8_t>(place)});
      break;
    case 2:
      bytes.erase(at, bytes.end());
      break;
    case 3:
      bytes.erase(bytes.begin(), at);
      break;
    case 4:
      bytes.insert(at, random.pick<std::uint8_t>({0, 1, 2, 4, 8, 0xff}));
      break;
    case 5: {  // huge counts and offsets
      const std::uint64_t value =
          random.pick<std::uint64_t>({0, ~std::uint64_t{0}, std::uint64_t{1} << random.below(64)});
      for (std::size_t i = 0; i < 8 && place + i < bytes.size(); ++i)
        bytes[place + i] = static_cast<std::uint8_t>(value >> 8 * i);
      break;
    }
    default: {
      const Bytes slice(at, bytes.end());
      bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(random.index(bytes.size())), slice.begin(), slice.end());
    }
  }
}

// Builds a model node by node; what a tensor holds beyond its type stands in `channels`.
class Builder {
 public:
  explicit Builder(Random& random) : random_(random) {}

  Model build() {
    const int kind = random_.below(10);
    int tensor = kind < 5   ? input(tflite_abi::kFloat32)
                 : kind < 7 ? input(tflite_abi::kInt8)
                 : kind < 9 ? flip_signs(input(tflite_abi::kUInt8))
                            : input(tflite_abi::kBool);
    if (type(tensor) == tflite_abi::kInt8 && random_.one_in(2)) tensor = space_to_depth(tensor);
    if (type(tensor) == tflite_abi::kInt8 && random_.one_in(2)) tensor = int8_layers(tensor);
    for (int left = random_.between(1, 6); left > 0; --left) tensor = step(tensor);
    if (larq_nodes_ == 0) tensor = quantize(tensor);
    for (std::size_t i = 0; i < model_.tensors.size(); ++i) {
      const bool is_written = !model_.tensors[i].constant && static_cast<int>(i) != model_.inputs[0];
      if (static_cast<int>(i) == tensor || (is_written && random_.one_in(6)))
        model_.outputs.push_back(static_cast<int>(i));
    }
    return std::move(model_);
  }

 private:
  struct Window {
    int filter[2], stride[2], dilation[2];
    bool same;
  };

  const Tensor& at(int tensor) const { return model_.tensors[static_cast<std::size_t>(tensor)]; }
  int type(int tensor) const { return at(tensor).type; }

  int add(Tensor tensor, int channels) {
    model_.tensors.push_back(std::move(tensor));
    channels_.push_back(channels);
    return static_cast<int>(model_.tensors.size()) - 1;
  }

  int channels(int tensor) const { return channels_[static_cast<std::size_t>(tensor)]; }
  static int words(int channels) { return (channels + 31) / 32; }

  Tensor image(int type, const Dims* dims, int channels) {
    Tensor tensor;
    tensor.type = type;
    for (int i = 0; i < 2; ++i) {
      tensor.dims[i] = dims[i];
      tensor.dims[i][3] = type == tflite_abi::kInt32 ? words(channels) : channels;
    }
    if (type == tflite_abi::kInt8 || type == tflite_abi::kUInt8) {
      tensor.quantized = true;
      tensor.scale = random_.pick({0.4F, 0.5F, 1.0F, 1.0F + 0x1p-23F, 3.0F});
      tensor.zero_point = random_.pick({-128, -128, 0, 5, 127});
    }
    return tensor;
  }

  int input(int type) {
    const bool is_image = type == tflite_abi::kInt8 || type == tflite_abi::kUInt8;
    const int channels = is_image ? random_.pick({1, 3, 3, 4, 5, 32, 40, 64, 65, 1500}) : some_channels();
    const int largest = random_.one_in(channels > 1000 ? 2 : 8) ? 24 : 9;  // of many channels few rows fit a band
    const int block = is_image && channels < 1000 ? random_.pick({1, 2, 4}) : 1;
    Dims dims[2];
    for (Dims& size : dims) {
      size = {random_.between(1, 2), block * random_.between(1, largest), block * random_.between(1, largest), 0};
    }
    model_.inputs.push_back(add(image(type, dims, channels), channels));
    return model_.inputs[0];
  }

  int some_channels() {
    if (random_.one_in(60)) return 8192;  // more than can be counted at once
    return random_.one_in(4) ? random_.between(1, 140) : random_.pick({1, 8, 31, 32, 33, 64, 65, 96, 128});
  }

  template <typename T>
  int constant(int type, const Dims& dims, const std::vector<T>& values) {
    Tensor tensor;
    tensor.type = type;
    tensor.constant = true;
    tensor.dims[0] = tensor.dims[1] = dims;
    tensor.data.resize(values.size() * sizeof(T));
    std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
    return add(std::move(tensor), 0);
  }

  template <typename T, typename Draw>
  std::vector<T> several(int count, Draw draw) {
    std::vector<T> values;
    for (int i = 0; i < count; ++i) values.push_back(draw());
    return values;
  }

  template <typename T>
  static Bytes bytes_of(const T& options) {
    Bytes bytes(sizeof(T));
    std::memcpy(bytes.data(), &options, sizeof(T));
    return bytes;
  }

  int node(const char* name, const Options& settings, std::vector<int> inputs, int output) {
    node(tflite_abi::kCustom, name, settings.empty() ? Bytes() : encode(settings, random_), std::move(inputs), output);
    model_.nodes.back().settings = settings;
    return output;
  }

  int node(int builtin, const char* name, Bytes options, std::vector<int> inputs, int output) {
    Node made;
    made.builtin = builtin;
    made.name = name;
    made.options = std::move(options);
    made.inputs = std::move(inputs);
    made.outputs = {output};
    model_.nodes.push_back(std::move(made));
    larq_nodes_ += builtin == tflite_abi::kCustom;
    return output;
  }

  Window window(int from, int largest, bool dilates) {
    Window w{};
    w.same = random_.one_in(2);
    for (int axis = 0; axis < 2; ++axis) {
      w.filter[axis] = random_.between(1, largest);
      w.stride[axis] = random_.between(1, 3);
      w.dilation[axis] = dilates && random_.one_in(4) ? random_.between(1, 3) : 1;
      for (const Dims& dims : at(from).dims) {
        w.same = w.same || dims[static_cast<std::size_t>(axis) + 1] < (w.filter[axis] - 1) * w.dilation[axis] + 1;
      }
    }
    return w;
  }

  // The size behind a window, by its definition: as many as there are places to begin.
  int slide(const Window& w, int from, int type, int channels) {
    Tensor tensor = image(type, at(from).dims, channels);
    for (Dims& dims : tensor.dims) {
      for (std::size_t axis = 0; axis < 2; ++axis) {
        const int size = dims[axis + 1], reach = w.same ? 0 : (w.filter[axis] - 1) * w.dilation[axis];
        int places = 0;
        for (int first = 0; first + reach < size; first += w.stride[axis]) ++places;
        dims[axis + 1] = places;
      }
    }
    return add(std::move(tensor), channels);
  }

  int quantize(int from) {
    return node("LceQuantize", {}, {from},
                add(image(tflite_abi::kInt32, at(from).dims, channels(from)), channels(from)));
  }

  int dequantize(int from) {
    const int to = random_.pick<int>({tflite_abi::kFloat32, tflite_abi::kInt8, tflite_abi::kBool});
    return node("LceDequantize", {}, {from}, add(image(to, at(from).dims, channels(from)), channels(from)));
  }

  int max_pool(int from) {
    const Window w = window(from, 4, false);
    const Options options = {{"filter_height", w.filter[0]},
                             {"filter_width", w.filter[1]},
                             {"stride_height", w.stride[0]},
                             {"stride_width", w.stride[1]},
                             {"padding", w.same ? 0 : 1}};
    return node("LceBMaxPool2d", options, {from}, slide(w, from, tflite_abi::kInt32, channels(from)));
  }

  // `channels_out`: 0 for any.
  int convolve(int from, int to, const Window& w, int channels_out) {
    const int in = channels(from);
    int groups = in % 32 == 0 && random_.one_in(4) ? random_.between(1, words(in)) : 1;
    if (words(in) % groups != 0 || channels_out % groups != 0) groups = 1;
    if (channels_out == 0) channels_out = in > 4096 ? random_.between(1, 8) * groups : some_channels() % 256 * groups;
    channels_out = std::max(channels_out, groups);
    const Options options = {{"stride_height", w.stride[0]},
                             {"stride_width", w.stride[1]},
                             {"padding", w.same ? 0 : 1},
                             {"dilation_height_factor", w.dilation[0]},
                             {"channels_in", in},
                             {"dilation_width_factor", w.dilation[1]},
                             {"pad_values", random_.below(2)},
                             {"fused_activation_function", random_.below(4)}};
    const Dims filter = {channels_out, w.filter[0], w.filter[1], words(in) / groups};
    const auto bits = [this] { return static_cast<std::int32_t>(random_.bits()); };
    const auto real = [this] { return random_.real(); };
    const int window_bits = w.filter[0] * w.filter[1] * in / groups;
    const auto threshold = [&] {
      return random_.one_in(8) ? random_.pick({kIntMin, -1, 0, kIntMax}) : random_.below(window_bits + 1);
    };
    const int filters = constant(tflite_abi::kInt32, filter,
                                 several<std::int32_t>(channels_out * w.filter[0] * w.filter[1] * filter[3], bits));
    std::vector<int> inputs = {from, filters, -1, -1, -1};
    if (to == tflite_abi::kInt32) {
      inputs[4] = constant(tflite_abi::kInt32, {channels_out}, several<std::int32_t>(channels_out, threshold));
    } else {
      inputs[2] = constant(tflite_abi::kFloat32, {channels_out}, several<float>(channels_out, real));
      inputs[3] = constant(tflite_abi::kFloat32, {channels_out}, several<float>(channels_out, real));
    }
    return node("LceBconv2d", options, inputs, slide(w, from, to, channels_out));
  }

  int average(int from, const Window& w) {
    const int pooled = slide(w, from, type(from), channels(from));
    Tensor& tensor = model_.tensors[static_cast<std::size_t>(pooled)];
    tensor.scale = at(from).scale;
    tensor.zero_point = at(from).zero_point;
    const tflite_abi::PoolParams options{w.same ? tflite_abi::kPaddingSame : tflite_abi::kPaddingValid,
                                         w.stride[1],
                                         w.stride[0],
                                         w.filter[1],
                                         w.filter[0],
                                         tflite_abi::kActNone};
    return node(tflite_abi::kAveragePool2d, "", bytes_of(options), {from}, pooled);
  }

  int pad(int from, int before, int after) {
    const int paddings =
        constant(tflite_abi::kInt32, {4, 2}, std::vector<std::int32_t>{0, 0, 0, 0, 0, 0, before, after});
    const int wider = channels(from) + before + after;
    return node(tflite_abi::kPad, "", {1}, {from, paddings},
                add(image(tflite_abi::kFloat32, at(from).dims, wider), wider));
  }

  int sum(int a, int b) {
    if (random_.one_in(2)) std::swap(a, b);
    const tflite_abi::AddParams options{tflite_abi::kActNone};
    return node(tflite_abi::kAdd, "", bytes_of(options), {a, b},
                add(image(tflite_abi::kFloat32, at(a).dims, channels(a)), channels(a)));
  }

  // Another tensor of the same form, or the same one: read again, or later than it was.
  int alike(int tensor) {
    std::vector<int> found;
    for (std::size_t i = 0; i < model_.tensors.size(); ++i) {
      const Tensor& other = model_.tensors[i];
      const bool is_alike = !other.constant && other.type == type(tensor) && other.dims[0] == at(tensor).dims[0] &&
                            other.dims[1] == at(tensor).dims[1] && channels_[i] == channels(tensor);
      if (is_alike) found.push_back(static_cast<int>(i));
    }
    return found[random_.index(found.size())];
  }

  int concatenate(int from) {
    std::vector<int> parts = {from};
    for (int left = random_.below(4); left > 0; --left) parts.push_back(alike(from));
    const int whole = channels(from) * static_cast<int>(parts.size());
    const tflite_abi::ConcatenationParams options{random_.pick({-1, 3}), tflite_abi::kActNone};
    return node(tflite_abi::kConcatenation, "", bytes_of(options), parts,
                add(image(tflite_abi::kFloat32, at(from).dims, whole), whole));
  }

  int depth_to_space(int from) {
    const int side = random_.pick({1, 2, 2, 3});
    if (channels(from) % (side * side) != 0) return from;
    const int left = channels(from) / (side * side);
    Tensor wide = image(tflite_abi::kFloat32, at(from).dims, left);
    for (Dims& dims : wide.dims) dims[1] *= side, dims[2] *= side;
    return node(tflite_abi::kDepthToSpace, "", bytes_of(tflite_abi::BlockParams{side}), {from},
                add(std::move(wide), left));
  }

  // A copy of an int8 tensor's form that stands for the same values.
  Tensor with_values_of(int from, int channels) {
    Tensor tensor = image(tflite_abi::kInt8, at(from).dims, channels);
    tensor.scale = at(from).scale;
    tensor.zero_point = at(from).zero_point;
    return tensor;
  }

  int space_to_depth(int from) {
    const int side = random_.pick({1, 2, 4});
    for (const Dims& dims : at(from).dims) {
      if (dims[1] % side != 0 || dims[2] % side != 0) return from;
    }
    const int deep = channels(from) * side * side;
    Tensor tensor = with_values_of(from, deep);
    for (Dims& dims : tensor.dims) dims[1] /= side, dims[2] /= side;
    return node(tflite_abi::kSpaceToDepth, "", bytes_of(tflite_abi::BlockParams{side}), {from},
                add(std::move(tensor), deep));
  }

  // QUANTIZE of uint8 to int8.
  int flip_signs(int from) {
    const int flipped = add(with_values_of(from, channels(from)), channels(from));
    model_.tensors[static_cast<std::size_t>(from)].zero_point += 128;
    return node(tflite_abi::kQuantize, "", {}, {from}, flipped);
  }

  // DEQUANTIZE of int8.
  int to_float(int from) {
    return node(tflite_abi::kDequantize, "", {}, {from},
                add(image(tflite_abi::kFloat32, at(from).dims, channels(from)), channels(from)));
  }

  // QUANTIZE of float to int8.
  int to_int8(int from) {
    return node(tflite_abi::kQuantize, "", {}, {from},
                add(image(tflite_abi::kInt8, at(from).dims, channels(from)), channels(from)));
  }

  // A tensor beside itself, so that its channels repeat.
  int repeat(int from, int times) {
    const int whole = channels(from) * times;
    const tflite_abi::ConcatenationParams options{3, tflite_abi::kActNone};
    return node(tflite_abi::kConcatenation, "", bytes_of(options),
                std::vector<int>(static_cast<std::size_t>(times), from),
                add(image(tflite_abi::kFloat32, at(from).dims, whole), whole));
  }

  // As the way down and up again beside an image: what has fewer pixels is enlarged and added.
  int enlarged(int from) {
    const int side = random_.between(2, 3);
    for (const Dims& dims : at(from).dims) {
      if (dims[1] % side != 0 || dims[2] % side != 0) return from;
    }
    Window w{};
    for (int axis = 0; axis < 2; ++axis) w.filter[axis] = w.stride[axis] = side, w.dilation[axis] = 1;
    const int small = convolve(quantize(from), tflite_abi::kFloat32, w, channels(from));
    const int wide = repeat(small, side * side);
    Tensor whole = image(tflite_abi::kFloat32, at(from).dims, channels(from));
    const int large = node(tflite_abi::kDepthToSpace, "", bytes_of(tflite_abi::BlockParams{side}), {wide},
                           add(std::move(whole), channels(from)));
    return sum(large, from);
  }

  // quantize, convolve, add the shortcut; where the layer is wider or strides, that is pooled and padded.
  int residual_block(int from) {
    Window w = window(from, 3, true);
    w.same = true;
    int shortcut = from, channels_out = channels(from);
    if (random_.one_in(2)) {
      w.stride[0] = w.stride[1] = 1;
    } else {
      Window pooling = w;
      pooling.dilation[0] = pooling.dilation[1] = 1;
      shortcut = average(from, pooling);
    }
    if (random_.one_in(2)) {
      const int before = random_.below(20), after = random_.below(40);
      shortcut = pad(shortcut, before, after);
      channels_out += before + after;
    } else if (channels(from) < 200 && random_.one_in(2)) {
      const int times = random_.between(2, 4);
      shortcut = repeat(shortcut, times);
      channels_out *= times;
    }
    return sum(convolve(quantize(from), tflite_abi::kFloat32, w, channels_out), shortcut);
  }

  int foreign(int from) {
    return node(98, "", {}, {from}, add(image(type(from), at(from).dims, channels(from)), channels(from)));
  }

  // CONV_2D in int8 with RELU6: 16 levels, or not, behind the weights of one magnitude, or not.
  int int8_layer(int from) {
    const int in = channels(from);
    const Window w = window(from, in > 1000 ? 2 : 3, true);
    const int out = in > 256             ? random_.between(1, 8)
                    : random_.one_in(10) ? random_.pick({512, 2048})  // several bands, or too many values for a layer
                    : random_.one_in(2)  ? random_.pick({32, 64, 96})
                                         : some_channels() % 256;
    const int count = w.filter[0] * w.filter[1] * in;
    const int output = slide(w, from, tflite_abi::kInt8, std::max(out, 1));
    std::vector<std::int8_t> weights;
    for (int channel = 0; channel < channels(output); ++channel) {
      const int magnitude = random_.pick({1, 100, 127, 128});
      for (int i = 0; i < count; ++i) {
        weights.push_back(static_cast<std::int8_t>(magnitude == 128    ? random_.bits()
                                                   : random_.one_in(2) ? magnitude
                                                                       : -magnitude));
      }
    }
    const bool is_binary = random_.one_in(2);
    for (std::size_t i = 0; is_binary && i < weights.size(); ++i) weights[i] = weights[i] < 0 ? -127 : 127;
    const int filters = constant(tflite_abi::kInt8, {channels(output), w.filter[0], w.filter[1], in}, weights);
    Tensor& filter = model_.tensors[static_cast<std::size_t>(filters)];
    filter.quantized = true;
    for (int left = random_.one_in(4) ? 1 : channels(output); left > 0; --left) {
      // Up to ratios so close below a power of two that they round to it.
      const float ratio = random_.one_in(8) ? random_.pick({1.0F, std::nextafter(1.0F, 0.0F), 0.5F, 1e-12F})
                                            : static_cast<float>(random_.between(1, 999)) * 1e-6F;
      filter.scales.push_back(at(output).scale / at(from).scale * ratio);
    }
    std::vector<int> inputs = {from, filters};
    const auto bias = [this] {
      return random_.one_in(500) ? random_.pick({kIntMin, kIntMax, 1 << 30}) : random_.between(-9999, 9999);
    };
    if (!random_.one_in(8))
      inputs.push_back(constant(tflite_abi::kInt32, {channels(output)}, several<std::int32_t>(channels(output), bias)));
    const tflite_abi::ConvParams options{
        w.same ? tflite_abi::kPaddingSame : tflite_abi::kPaddingValid,
        w.stride[1],
        w.stride[0],
        random_.pick({tflite_abi::kActRelu6, tflite_abi::kActRelu6, tflite_abi::kActRelu, tflite_abi::kActNone}),
        w.dilation[1],
        w.dilation[0]};
    return node(tflite_abi::kConv2d, "", bytes_of(options), inputs, output);
  }

  int int8_layers(int from) {
    for (int left = random_.between(1, 3); left > 0; --left) {
      from = int8_layer(from);
      if (random_.one_in(2)) {  // as layers in front of a level convolution are
        Tensor& tensor = model_.tensors[static_cast<std::size_t>(from)];
        tensor.zero_point = -128;
      }
    }
    return from;
  }

  int step(int from) {
    if (random_.one_in(12)) return foreign(from);
    if (type(from) == tflite_abi::kInt32) {
      const int kind = random_.below(8);
      if (kind == 0) return dequantize(from);
      if (kind == 1) return max_pool(from);
      const int to = random_.pick<int>({tflite_abi::kFloat32, tflite_abi::kInt32, tflite_abi::kInt8});
      return convolve(from, to, window(from, channels(from) > 4096 ? 3 : 4, true), 0);
    }
    if (type(from) == tflite_abi::kFloat32 && channels(from) < 4096) {
      const int kind = random_.below(14);
      if (kind == 8) return to_int8(from);
      if (kind == 9 && channels(from) < 400) return enlarged(from);
      if (kind < 3) return residual_block(from);
      if (kind == 3) return average(from, window(from, 3, false));
      if (kind == 4) return pad(from, random_.below(9), random_.below(9));
      if (kind == 5) return depth_to_space(from);
      if (kind == 6) return sum(from, alike(from));
      if (kind == 7 && channels(from) < 200) return concatenate(from);
    }
    if (type(from) == tflite_abi::kInt8 && channels(from) < 4096) {
      const int kind = random_.below(6);
      if (kind == 0) return int8_layer(from);
      if (kind == 1) return average(from, window(from, 4, false));
      if (kind == 2) return to_float(from);
    }
    return quantize(from);
  }

  Random& random_;
  Model model_;
  std::vector<int> channels_;
  int larq_nodes_ = 0;
};

constexpr std::pair<int, int> kOfTheSameOptions[] = {{tflite_abi::kSpaceToDepth, tflite_abi::kDepthToSpace},
                                                     {tflite_abi::kQuantize, tflite_abi::kDequantize}};

// One thing in the model made other than a converter makes it.
inline void damage(Model& model, Random& random) {
  const auto some_int = [&random](int end) {
    return random.pick({-1, 0, 1, -2, random.below(end), end, 100, 128, 40000, 1 << 20, 1 << 24, 1 << 30, kIntMin,
                        kIntMax, kIntMax - 30});
  };
  if (random.one_in(2)) {
    Tensor& tensor = model.tensors[random.index(model.tensors.size())];
    const float infinity = std::numeric_limits<float>::infinity();
    const float strange = random.pick({0.0F, -1.0F, 1e-45F, 1e-30F, 3e38F, infinity, -infinity, std::nanf("")});
    switch (random.below(14)) {
      case 0:
        tensor.type = random.pick<int>({0, 2, 4, 7, 17, 18, tflite_abi::kFloat32, tflite_abi::kInt32, tflite_abi::kInt8,
                                        tflite_abi::kUInt8, tflite_abi::kBool, kIntMax});
        break;
      case 1:
        random.one_in(2) ? tensor.dims[0].push_back(1) : tensor.dims[0].clear();
        break;
      case 2:
        if (!tensor.dims[0].empty()) tensor.dims[0].pop_back();
        break;
      case 3:
      case 4:
        if (!tensor.dims[0].empty()) tensor.dims[0][random.index(tensor.dims[0].size())] = some_int(64);
        break;
      case 5:
        tensor.constant = !tensor.constant;
        break;
      case 6:
        if (!tensor.data.empty()) tensor.data.resize(random.index(tensor.data.size()));
        break;
      case 7:
        tensor.scale = strange;
        tensor.quantized = random.one_in(2);
        break;
      case 8:
        tensor.zero_point = random.pick({kIntMin, kIntMax, 128, -129, 1000, -1000});
        break;
      case 9:
        tensor.scales.resize(random.index(tensor.scales.size() + 3), strange);
        break;
      case 10:
        if (!tensor.scales.empty()) tensor.scales[random.index(tensor.scales.size())] = strange;
        break;
      case 11:
        tensor.axis = some_int(4);
        break;
      case 12:
        (random.one_in(3) ? tensor.has_dims : random.one_in(2) ? tensor.has_data : tensor.aligned) = false;
        break;
      default:
        for (std::size_t i = 0; i + 4 <= tensor.data.size(); i += 4) {
          const float value = random.one_in(2) ? strange : random.real();
          std::memcpy(&tensor.data[i], &value, sizeof(value));
        }
    }
    return;
  }
  Node& node = model.nodes[random.index(model.nodes.size())];
  std::vector<int>& indices = random.one_in(3) ? node.outputs : node.inputs;
  switch (random.below(9)) {
    case 0:
    case 1:
      if (!indices.empty()) indices[random.index(indices.size())] = some_int(static_cast<int>(model.tensors.size()));
      break;
    case 2:
      indices.push_back(random.one_in(2) ? random.below(static_cast<int>(model.tensors.size())) : -1);
      break;
    case 3:
      if (!indices.empty()) indices.pop_back();
      break;
    case 4:
      (random.one_in(2) ? node.has_inputs : node.has_outputs) = false;
      (node.has_inputs ? node.outputs : node.inputs).clear();
      break;
    case 5: {  // of the same kind, from other tensors
      Node twin = node;
      if (!twin.inputs.empty()) twin.inputs[0] = random.below(static_cast<int>(model.tensors.size()));
      if (random.one_in(2) && !twin.outputs.empty())
        twin.outputs[0] = random.below(static_cast<int>(model.tensors.size()));
      model.nodes.push_back(twin);
      break;
    }
    case 6:
      if (node.builtin == tflite_abi::kCustom)
        node.name = random.pick({"LceQuantize", "LceDequantize", "LceBconv2d", "LceBMaxPool2d", "LceNew", "Lc", ""});
      for (const auto& [one, other] : kOfTheSameOptions) {
        if (node.builtin == one || node.builtin == other) {
          node.builtin = node.builtin == one ? other : one;
          break;
        }
      }
      break;
    default:
      if (!node.settings.empty() && random.one_in(2)) {
        std::next(node.settings.begin(), random.below(static_cast<int>(node.settings.size())))->second = some_int(8);
        node.options = encode(node.settings, random);
      } else if (node.builtin == tflite_abi::kCustom) {
        damage(node.options, random);
      } else if (random.one_in(4)) {
        node.options.clear();
      } else if (node.options.size() >= 4) {
        const int value = some_int(8);
        std::memcpy(&node.options[random.index(node.options.size() / 4) * 4], &value, sizeof(value));
      }
  }
}

}  // namespace fake
