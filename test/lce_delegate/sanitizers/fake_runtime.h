// SPDX-License-Identifier: Apache-2.0
// As much of a TFLite interpreter as a delegate sees. Every tensor's memory is exactly as large as its shape says, so
// that AddressSanitizer sees each byte read or written beside it; tensors inside a delegated part have none.
#pragma once

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tflite_abi.h"

namespace fake {

using Dims = std::vector<int>;
using Bytes = std::vector<std::uint8_t>;

struct Tensor {
  int type = tflite_abi::kFloat32;
  Dims dims[2];  // before and after the input has been resized
  bool constant = false;
  Bytes data;  // of a constant
  bool has_dims = true, has_data = true, aligned = true;
  float scale = 0;
  int zero_point = 0;
  bool quantized = false, has_scales = true;
  std::vector<float> scales;  // of channels
  int axis = 0;
};

struct Node {
  int builtin = tflite_abi::kCustom;
  std::string name;                     // of a custom operator
  Bytes options;                        // of a custom operator; or the struct of a builtin one
  std::map<std::string, int> settings;  // what `options` of a custom operator say
  std::vector<int> inputs, outputs;
  bool has_inputs = true, has_outputs = true;
};

struct Model {
  std::vector<Tensor> tensors;
  std::vector<Node> nodes;
  std::vector<int> inputs, outputs;
};

// What a runtime may fail at.
struct Faults {
  bool plan = false, node = false, resize = false;
};

// The allocations that a thread makes inside the delegate; the one with the number `fails` throws std::bad_alloc.
struct Allocations {
  bool counted = false;
  long count = 0, fails = 0;
};

inline thread_local Allocations allocations;

// Whether allocations are the delegate's, as long as it lives.
class Inside {
 public:
  explicit Inside(bool delegate) : before_(allocations.counted) { allocations.counted = delegate; }
  ~Inside() { allocations.counted = before_; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  const bool before_;
};

class Runtime {
 public:
  // With `apart` each delegated node becomes a part of its own, so that nothing can be fused.
  Runtime(const Model& model, bool apart, std::uint8_t rubbish, Faults faults = {})
      : model_(model), apart_(apart), rubbish_(rubbish), faults_(faults), tensors_(model.tensors.size()) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) make_tensor(model.tensors[i], tensors_[i]);
    for (const Node& node : model.nodes) nodes_.push_back(make_node(node));
    plan_ = ints([&] {
      std::vector<int> all;
      for (std::size_t i = 0; i < nodes_.size(); ++i) all.push_back(static_cast<int>(i));
      return all;
    }());
    context_.tensors_size = tensors_.size();
    context_.tensors = tensors_.data();
    context_.impl = this;
    context_.GetExecutionPlan = [](tflite_abi::Context* context, tflite_abi::IntArray** plan) {
      *plan = of(context).plan_;
      return of(context).faults_.plan ? tflite_abi::kError : tflite_abi::kOk;
    };
    context_.GetNodeAndRegistration = [](tflite_abi::Context* context, int index, tflite_abi::Node** node,
                                         tflite_abi::Registration** registration) {
      if (of(context).faults_.node) return tflite_abi::kError;
      *node = &of(context).nodes_[static_cast<std::size_t>(index)]->node;
      *registration = &of(context).nodes_[static_cast<std::size_t>(index)]->registration;
      return tflite_abi::kOk;
    };
    context_.ResizeTensor = [](tflite_abi::Context* context, tflite_abi::Tensor* tensor, tflite_abi::IntArray* dims) {
      const bool fails = of(context).faults_.resize || tensor->allocation_type == tflite_abi::kMmapRo;
      if (!fails) std::swap(tensor->dims, dims);
      std::free(dims);
      return fails ? tflite_abi::kError : tflite_abi::kOk;
    };
    context_.ReportError = report;
    context_.ReplaceNodeSubsetsWithDelegateKernels = [](tflite_abi::Context* context, tflite_abi::Registration kernel,
                                                        const tflite_abi::IntArray* chosen,
                                                        tflite_abi::Delegate* delegate) {
      const Inside runtime(false);
      return of(context).replace(kernel, {chosen->data, chosen->data + chosen->size}, delegate);
    };
  }

  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  ~Runtime() {
    for (const Step& step : steps_) {
      if (step.part) step.part->kernel.free(&context_, step.part->node.user_data);
    }
    for (tflite_abi::Tensor& tensor : tensors_) {
      std::free(tensor.dims);
      if (tensor.allocation_type != tflite_abi::kMmapRo) std::free(tensor.data);
    }
    for (void* memory : memory_) std::free(memory);
  }

  // Each of the following is one that TFLite would go through; false where it would raise an error.
  bool apply(tflite_abi::Delegate* delegate) {
    const Inside inside(true);
    return delegate->Prepare(&context_, delegate) == tflite_abi::kOk;
  }

  void resize(int tensor, const Dims& dims) {
    std::free(at(tensor).dims);
    at(tensor).dims = new_ints(dims);
  }

  // `size`: which of the tensors' sizes those have that other operators than the delegate's write.
  bool allocate(std::size_t size) {
    for (const Step& step : steps_) {
      if (step.part) {
        const Inside inside(true);
        if (step.part->kernel.prepare(&context_, &step.part->node) != tflite_abi::kOk) return false;
        continue;
      }
      for (const int output : model_.nodes[static_cast<std::size_t>(step.node)].outputs) {
        if (!exists(output) || is_constant(output)) continue;
        resize(output, model_.tensors[static_cast<std::size_t>(output)].dims[size]);
      }
    }
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      tflite_abi::Tensor& tensor = tensors_[i];
      if (tensor.allocation_type == tflite_abi::kMmapRo) continue;
      std::free(tensor.data);
      tensor.data = nullptr;
      tensor.bytes = 0;
      if (inner_.count(static_cast<int>(i)) > 0) continue;
      std::size_t bytes = tensor.type == tflite_abi::kFloat32 || tensor.type == tflite_abi::kInt32 ? 4 : 1;
      for (const int length : dims_of(static_cast<int>(i))) {
        if (length < 0 || (bytes *= static_cast<std::size_t>(length)) > kMaxBytes) return false;
      }
      tensor.data = std::malloc(bytes);
      tensor.bytes = bytes;
      std::memset(tensor.data, rubbish_, bytes);
    }
    return true;
  }

  // Fills the graph's inputs and runs it. What other operators write depends on nothing but the tensor.
  bool invoke() {
    for (const int input : model_.inputs) fill(input);
    for (const Step& step : steps_) {
      if (step.part) {
        const Inside inside(true);
        if (step.part->kernel.invoke(&context_, &step.part->node) != tflite_abi::kOk) return false;
        continue;
      }
      for (const int output : model_.nodes[static_cast<std::size_t>(step.node)].outputs) fill(output);
    }
    return true;
  }

  Dims dims_of(int tensor) const {
    const tflite_abi::IntArray* dims = tensors_[static_cast<std::size_t>(tensor)].dims;
    return dims == nullptr ? Dims() : Dims(dims->data, dims->data + dims->size);
  }

  Bytes data_of(int tensor) const {
    const tflite_abi::Tensor& from = tensors_[static_cast<std::size_t>(tensor)];
    const auto* data = static_cast<const std::uint8_t*>(from.data);
    return Bytes(data, data + from.bytes);
  }

  bool is_inner(int tensor) const { return inner_.count(tensor) > 0; }
  std::size_t parts() const { return parts_; }
  const std::vector<std::string>& reports() const { return reports_; }

 private:
  static constexpr std::size_t kMaxBytes = std::size_t{1} << 26;

  struct RuntimeNode {
    tflite_abi::Node node{};
    tflite_abi::Registration registration{};
  };

  struct Part {
    tflite_abi::Registration kernel{};
    tflite_abi::Node node{};
  };

  struct Step {
    int node;                    // where `part` is null
    std::shared_ptr<Part> part;  // of the delegate
  };

  static Runtime& of(tflite_abi::Context* context) { return *static_cast<Runtime*>(context->impl); }

  __attribute__((format(printf, 2, 3))) static void report(tflite_abi::Context* context, const char* format, ...) {
    const Inside runtime(false);
    char text[1024];
    std::va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    of(context).reports_.emplace_back(text);
  }

  static tflite_abi::IntArray* new_ints(const std::vector<int>& from) {
    auto* array = static_cast<tflite_abi::IntArray*>(std::malloc(sizeof(int) * (from.size() + 1)));
    array->size = static_cast<int>(from.size());
    std::copy(from.begin(), from.end(), array->data);
    return array;
  }

  // Memory that lives as long as the runtime.
  template <typename T>
  T* keep(T* memory) {
    memory_.push_back(memory);
    return memory;
  }

  tflite_abi::IntArray* ints(const std::vector<int>& from) { return keep(new_ints(from)); }

  void* copy(const Bytes& from, std::size_t offset = 0) {
    auto* memory = keep(static_cast<std::uint8_t*>(std::malloc(from.size() + offset)));
    std::copy(from.begin(), from.end(), memory + offset);
    return memory + offset;
  }

  void make_tensor(const Tensor& from, tflite_abi::Tensor& tensor) {
    tensor.type = static_cast<tflite_abi::Type>(from.type);
    tensor.dims = from.has_dims ? new_ints(from.dims[0]) : nullptr;
    tensor.params = {from.scale, from.zero_point};
    if (from.quantized) {
      tensor.quantization.type = tflite_abi::kAffineQuantization;
      auto* affine =
          keep(static_cast<tflite_abi::AffineQuantization*>(std::malloc(sizeof(tflite_abi::AffineQuantization))));
      const std::vector<float> scales = from.scales.empty() ? std::vector<float>{from.scale} : from.scales;
      auto* array = keep(static_cast<tflite_abi::FloatArray*>(std::malloc(sizeof(float) * (scales.size() + 1))));
      array->size = static_cast<int>(scales.size());
      std::copy(scales.begin(), scales.end(), array->data);
      *affine = {from.has_scales ? array : nullptr, ints({from.zero_point}), from.axis};
      tensor.quantization.params = affine;
    }
    if (from.constant) {
      tensor.allocation_type = tflite_abi::kMmapRo;
      tensor.data = from.has_data ? copy(from.data, from.aligned ? 0 : 1) : nullptr;
      tensor.bytes = from.data.size();
    }
  }

  std::unique_ptr<RuntimeNode> make_node(const Node& from) {
    auto made = std::make_unique<RuntimeNode>();
    tflite_abi::Node& node = made->node;
    node.inputs = from.has_inputs ? ints(from.inputs) : nullptr;
    node.outputs = from.has_outputs ? ints(from.outputs) : nullptr;
    made->registration.builtin_code = from.builtin;
    if (from.builtin == tflite_abi::kCustom) {
      made->registration.custom_name = from.name.c_str();
      node.custom_initial_data = from.options.empty() ? nullptr : copy(from.options);
      node.custom_initial_data_size = static_cast<int>(from.options.size());
    } else {
      node.builtin_data = from.options.empty() ? nullptr : copy(from.options);
    }
    return made;
  }

  tflite_abi::Tensor& at(int tensor) { return tensors_[static_cast<std::size_t>(tensor)]; }
  bool exists(int tensor) const { return tensor >= 0 && static_cast<std::size_t>(tensor) < tensors_.size(); }
  bool is_constant(int tensor) const {
    return tensors_[static_cast<std::size_t>(tensor)].allocation_type == tflite_abi::kMmapRo;
  }

  // Values that are small as int8 seen from the zero point: a sixteenth of them, as behind a RELU6.
  void fill(int index) {
    if (!exists(index) || is_constant(index) || at(index).data == nullptr) return;
    tflite_abi::Tensor& tensor = at(index);
    std::uint32_t state = 12345U + static_cast<std::uint32_t>(index);
    const auto next = [&state] { return (state = state * 1664525U + 1013904223U) >> 8; };
    auto* bytes = static_cast<std::uint8_t*>(tensor.data);
    for (std::size_t i = 0; i < tensor.bytes; ++i) {
      bytes[i] = static_cast<std::uint8_t>(next());
      if (tensor.type == tflite_abi::kBool) bytes[i] &= 1;
      if (tensor.type == tflite_abi::kInt8) {
        const std::int64_t level = std::int64_t{tensor.params.zero_point} + bytes[i] % 16;
        bytes[i] = static_cast<std::uint8_t>(std::max<std::int64_t>(-128, std::min<std::int64_t>(127, level)));
      }
    }
    if (tensor.type != tflite_abi::kFloat32) return;
    for (std::size_t i = 0; i + 4 <= tensor.bytes; i += 4) {
      const float value = static_cast<float>(next() % 2001) * 0.01F - 10.0F;
      std::memcpy(bytes + i, &value, sizeof(value));
    }
  }

  // TFLite's partition: parts grow through the plan as long as nodes of the same kind are ready.
  tflite_abi::Status replace(const tflite_abi::Registration& kernel, const std::set<int>& chosen,
                             tflite_abi::Delegate* delegate) {
    std::set<int> missing;
    std::vector<int> left;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      left.push_back(static_cast<int>(i));
      missing.insert(model_.nodes[i].outputs.begin(), model_.nodes[i].outputs.end());
    }
    while (true) {
      std::vector<int> part;
      for (bool grew = true; grew;) {
        grew = false;
        for (auto node = left.begin(); node != left.end();) {
          const Node& facts = model_.nodes[static_cast<std::size_t>(*node)];
          bool joins = part.empty() || ((chosen.count(part[0]) > 0) == (chosen.count(*node) > 0) && !apart_);
          for (const int input : facts.inputs) joins = joins && (input < 0 || missing.count(input) == 0);
          if (!joins) {
            ++node;
            continue;
          }
          for (const int output : facts.outputs) missing.erase(output);
          part.push_back(*node);
          node = left.erase(node);
          grew = true;
        }
      }
      if (part.empty()) return tflite_abi::kOk;
      if (chosen.count(part[0]) > 0) {
        add_part(kernel, part, delegate);
      } else {
        for (const int node : part) steps_.push_back({node, nullptr});
      }
    }
  }

  void add_part(const tflite_abi::Registration& kernel, const std::vector<int>& nodes, tflite_abi::Delegate* delegate) {
    std::set<int> written, read_elsewhere(model_.outputs.begin(), model_.outputs.end()), inputs, outputs;
    for (std::size_t i = 0; i < model_.nodes.size(); ++i) {
      const Node& node = model_.nodes[i];
      if (std::find(nodes.begin(), nodes.end(), static_cast<int>(i)) == nodes.end()) {
        read_elsewhere.insert(node.inputs.begin(), node.inputs.end());
      } else {
        inputs.insert(node.inputs.begin(), node.inputs.end());
        written.insert(node.outputs.begin(), node.outputs.end());
      }
    }
    for (const int tensor : written) {
      inputs.erase(tensor);
      (read_elsewhere.count(tensor) > 0 ? outputs : inner_).insert(tensor);
    }
    tflite_abi::DelegateParams params{delegate, ints(nodes), ints({inputs.begin(), inputs.end()}),
                                      ints({outputs.begin(), outputs.end()})};
    auto part = std::make_shared<Part>();
    part->kernel = kernel;
    part->node.inputs = params.input_tensors;
    part->node.outputs = params.output_tensors;
    part->node.delegate = delegate;
    {
      const Inside inside(true);
      part->node.user_data = kernel.init(&context_, reinterpret_cast<const char*>(&params), 0);
    }
    steps_.push_back({-1, part});
    ++parts_;
  }

  const Model& model_;
  const bool apart_;
  const std::uint8_t rubbish_;
  const Faults faults_;
  tflite_abi::Context context_{};
  std::vector<tflite_abi::Tensor> tensors_;
  std::vector<std::unique_ptr<RuntimeNode>> nodes_;
  tflite_abi::IntArray* plan_ = nullptr;
  std::vector<void*> memory_;
  std::vector<Step> steps_;
  std::set<int> inner_;
  std::size_t parts_ = 0;
  std::vector<std::string> reports_;
};

}  // namespace fake
