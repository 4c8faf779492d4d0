// SPDX-License-Identifier: Apache-2.0
// The face towards TensorFlow Lite: which nodes are ours, and the callbacks through which the runtime runs them.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "decoding.h"
#include "epipolar.h"
#include "kernel.h"
#include "int8_convolution.h"
#include "matching.h"
#include "operator.h"
#include "partition.h"
#include "refusal.h"
#include "resize.h"
#include "surroundings.h"
#include "tflite_abi.h"
#include "thread_pool.h"

namespace binvpr {
namespace {

using namespace tflite_abi;

constexpr int kMaxThreads = 64;

struct State {
  State(const Kernel& best, int threads, bool profiled) : kernel(best), pool(threads), is_profiled(profiled) {}

  Delegate delegate{};
  const Kernel& kernel;
  ThreadPool pool;
  const bool is_profiled;
  std::mutex running;         // interpreters that share a delegate take turns
  std::map<int, int> levels;  // of the tensors known to have few, while a graph is being read
};

struct Instance {
  State* state;
  std::unique_ptr<Partition> partition;
  std::vector<int> inputs;
  std::vector<int> results;
};

// Partitions that are profiled, in the order in which they were made.
struct Profiled {
  std::mutex mutex;
  std::vector<Partition*> partitions;
  std::string text;
};

Profiled& profiled() {
  static Profiled all;
  return all;
}

void* const kInitFailed = reinterpret_cast<void*>(-1);

// Nothing thrown may leave the library.
template <typename Work>
bool succeeds(Context* context, Work work) {
  try {
    work();
    return true;
  } catch (const Refusal& refusal) {
    context->ReportError(context, "%s\n", refusal.what());  // runtimes append what they say next
  } catch (const std::exception&) {
    context->ReportError(context, "there is not enough memory for a Larq operator; use a smaller input\n");
  }
  return false;
}

std::vector<int> values(const IntArray* array) {
  return array == nullptr ? std::vector<int>() : std::vector<int>(array->data, array->data + array->size);
}

const Tensor& tensor_at(const Context* context, int index) {
  require(index >= 0 && static_cast<std::size_t>(index) < context->tensors_size,
          "the model names a tensor that it lacks; convert the model again");
  return context->tensors[index];
}

TensorFacts read_tensor(const Context* context, int index, const std::map<int, int>& levels) {
  TensorFacts facts;
  if (index < 0) return facts;
  const Tensor& tensor = tensor_at(context, index);
  facts.present = true;
  facts.type = tensor.type;
  facts.dims = values(tensor.dims);
  facts.scale = tensor.params.scale;
  facts.zero_point = tensor.params.zero_point;
  const auto known = levels.find(index);
  if (known != levels.end()) facts.levels = known->second;
  facts.is_quantized = tensor.quantization.type == kAffineQuantization;
  if (const auto* affine = static_cast<const AffineQuantization*>(tensor.quantization.params);
      facts.is_quantized && affine != nullptr && affine->scale != nullptr) {
    facts.channel_scales.assign(affine->scale->data, affine->scale->data + affine->scale->size);
    facts.channel_axis = affine->quantized_dimension;
  }
  if (tensor.allocation_type == kMmapRo) {
    const bool may_be_read =
        facts.type == kFloat32 || facts.type == kInt32 || facts.type == kInt8 || facts.type == kBool;
    require(tensor.data != nullptr &&
                (!may_be_read || tensor.bytes >= element_count(facts.dims) * bytes_of(facts.type)),
            "a weight of a Larq operator is cut short; convert the model again");
    require(!may_be_read || reinterpret_cast<std::uintptr_t>(tensor.data) % bytes_of(facts.type) == 0,
            "a weight of a Larq operator is not aligned in the file; convert the model again");
    facts.constant = tensor.data;
  }
  return facts;
}

bool may_be_ours(const NodeFacts& node) {
  return node.builtin == kConv2d || place_of(node) != Place::kNowhere || is_larq(node);
}

Partition::Node read_node(Context* context, int index, const std::map<int, int>& levels) {
  tflite_abi::Node* node = nullptr;
  Registration* registration = nullptr;
  require(context->GetNodeAndRegistration(context, index, &node, &registration) == kOk,
          "the runtime does not show its graph; use tflite-runtime 2.13 or ai-edge-litert 2");
  Partition::Node read;
  read.facts.builtin = registration->builtin_code;
  if (registration->custom_name != nullptr) read.facts.name = registration->custom_name;
  if (!may_be_ours(read.facts)) {
    read.inputs = values(node->inputs);
    read.outputs = values(node->outputs);
    return read;
  }
  read.facts.builtin_options = node->builtin_data;
  read.facts.custom_options = static_cast<const std::uint8_t*>(node->custom_initial_data);
  if (read.facts.custom_options != nullptr && node->custom_initial_data_size > 0) {
    read.facts.custom_options_size = static_cast<std::size_t>(node->custom_initial_data_size);
  }
  for (const int tensor : values(node->inputs)) {
    read.facts.inputs.push_back(read_tensor(context, tensor, levels));
    if (read.facts.inputs.back().present && read.facts.inputs.back().constant == nullptr) read.inputs.push_back(tensor);
  }
  for (const int tensor : values(node->outputs)) {
    read.facts.outputs.push_back(read_tensor(context, tensor, levels));
    read.outputs.push_back(tensor);
  }
  return read;
}

// The nodes to take over, in the order of `plan`: all of Larq's, and what stands between them for a shortcut's sake.
std::vector<int> choose_nodes(Context* context, const std::vector<int>& plan, State& state) {
  std::map<int, Partition::Node> nodes;
  std::set<int> ours;
  for (const int index : plan) {
    const Partition::Node& node = nodes[index] = read_node(context, index, state.levels);
    if (is_larq(node.facts)) {
      make_operator(node.facts, state.kernel);  // throws what the user has to know
      ours.insert(index);
    } else if (is_int8_layer(node.facts)) {
      ours.insert(index);
    }
    if (const int levels = output_levels(node.facts); levels > 0) state.levels[node.outputs[0]] = levels;
  }
  const bool has_larq = std::any_of(nodes.begin(), nodes.end(), [](const auto& node) { return is_larq(node.second.facts); });
  if (!has_larq) return {};
  std::set<int> candidates;
  for (const auto& [index, node] : nodes) {
    if (place_of(node.facts) != Place::kNowhere && make_surrounding(node.facts, state.kernel) != nullptr) candidates.insert(index);
  }
  ours.insert(candidates.begin(), candidates.end());
  for (bool changed = true; changed;) {
    changed = false;
    std::set<int> written;
    std::map<int, bool> read_by_ours_alone;
    for (const auto& [index, node] : nodes) {
      const bool is_ours = ours.count(index) > 0;
      if (is_ours) written.insert(node.outputs.begin(), node.outputs.end());
      for (const int tensor : node.inputs) {
        const auto seen = read_by_ours_alone.emplace(tensor, true).first;
        seen->second = seen->second && is_ours;
      }
    }
    for (const int index : candidates) {
      if (ours.count(index) == 0) continue;
      const Partition::Node& node = nodes[index];
      bool follows_ours = false;
      for (const int tensor : node.inputs) follows_ours = follows_ours || written.count(tensor) > 0;
      const auto reader = read_by_ours_alone.find(node.outputs[0]);
      const bool precedes_ours = reader != read_by_ours_alone.end() && reader->second;
      const Place place = place_of(node.facts);
      if ((place != Place::kBefore && !follows_ours) || (place != Place::kBehind && !precedes_ours)) {
        ours.erase(index);
        changed = true;
      }
    }
  }
  std::map<int, int> writers;
  for (const auto& [index, node] : nodes) {
    for (const int tensor : node.outputs) ++writers[tensor];
  }
  std::vector<int> chosen;
  for (const int index : plan) {
    if (ours.count(index) == 0) continue;
    for (const int tensor : nodes[index].outputs) {
      require(writers[tensor] == 1, "two operators of the model write to the same tensor; convert the model again");
    }
    chosen.push_back(index);
  }
  return chosen;
}

struct FreeIntArray {
  void operator()(IntArray* array) const { std::free(array); }
};

// As the runtime makes them, since it frees the ones that it takes over.
std::unique_ptr<IntArray, FreeIntArray> make_int_array(const std::vector<int>& from) {
  auto* array = static_cast<IntArray*>(std::malloc(sizeof(int) * (from.size() + 1)));
  require(array != nullptr, "there is not enough memory for a Larq operator; use a smaller input");
  array->size = static_cast<int>(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) array->data[i] = from[i];
  return std::unique_ptr<IntArray, FreeIntArray>(array);
}

void* init(Context* context, const char* buffer, std::size_t /*length*/) {
  const auto* params = reinterpret_cast<const DelegateParams*>(buffer);
  std::unique_ptr<Instance> instance;
  const bool done = succeeds(context, [&] {
    instance = std::make_unique<Instance>();
    instance->state = static_cast<State*>(params->delegate->data);
    std::vector<Partition::Node> nodes;
    std::set<int> written;
    for (const int index : values(params->nodes_to_replace)) {
      nodes.push_back(read_node(context, index, instance->state->levels));
      written.insert(nodes.back().outputs.begin(), nodes.back().outputs.end());
    }
    std::set<int> inputs;
    for (const Partition::Node& node : nodes) {
      for (const int tensor : node.inputs) {
        if (written.count(tensor) == 0) inputs.insert(tensor);
      }
    }
    instance->inputs.assign(inputs.begin(), inputs.end());
    instance->results = values(params->output_tensors);
    instance->partition = std::make_unique<Partition>(nodes, instance->results, instance->state->kernel);
    if (instance->state->is_profiled) {
      instance->partition->profile(instance->state->pool.threads() == 1);
      const std::lock_guard<std::mutex> lock(profiled().mutex);
      profiled().partitions.push_back(instance->partition.get());
    }
  });
  return done ? instance.release() : kInitFailed;
}

void free_instance(Context* /*context*/, void* instance) {
  if (instance == kInitFailed) return;
  auto* const made = static_cast<Instance*>(instance);
  {
    const std::lock_guard<std::mutex> lock(profiled().mutex);
    auto& partitions = profiled().partitions;
    partitions.erase(std::remove(partitions.begin(), partitions.end(), made->partition.get()), partitions.end());
  }
  delete made;
}

Status prepare(Context* context, tflite_abi::Node* node) {
  if (node->user_data == kInitFailed) return kError;  // init has said why
  auto& instance = *static_cast<Instance*>(node->user_data);
  const bool done = succeeds(context, [&] {
    std::map<int, Dims> dims;
    for (const int tensor : instance.inputs) dims[tensor] = values(tensor_at(context, tensor).dims);
    const std::vector<Dims> results = instance.partition->prepare(dims);
    for (std::size_t i = 0; i < results.size(); ++i) {
      Tensor& tensor = context->tensors[instance.results[i]];
      require(context->ResizeTensor(context, &tensor, make_int_array(results[i]).release()) == kOk,
              "the runtime has no memory for the output of a Larq operator; use a smaller input");
    }
  });
  return done ? kOk : kError;
}

Status invoke(Context* context, tflite_abi::Node* node) {
  auto& instance = *static_cast<Instance*>(node->user_data);
  const bool done = succeeds(context, [&] {
    const std::lock_guard<std::mutex> lock(instance.state->running);
    instance.partition->run([context](int tensor) { return context->tensors[tensor].data; }, instance.state->pool);
  });
  return done ? kOk : kError;
}

Status claim(Context* context, Delegate* delegate) {
  auto& state = *static_cast<State*>(delegate->data);
  Status status = kError;
  const bool done = succeeds(context, [&] {
    const std::lock_guard<std::mutex> lock(state.running);
    state.levels.clear();
    IntArray* plan = nullptr;
    require(context->GetExecutionPlan(context, &plan) == kOk,
            "the runtime does not show its graph; use tflite-runtime 2.13 or ai-edge-litert 2");
    const std::vector<int> chosen = choose_nodes(context, values(plan), state);
    if (chosen.empty()) {
      status = kOk;
      return;
    }
    Registration registration{};
    registration.init = init;
    registration.free = free_instance;
    registration.prepare = prepare;
    registration.invoke = invoke;
    registration.builtin_code = kCustom + 19;  // DELEGATE
    registration.custom_name = "BinvprLceDelegate";
    registration.version = 1;
    status = context->ReplaceNodeSubsetsWithDelegateKernels(context, registration, make_int_array(chosen).get(), delegate);
  });
  return done ? status : kError;
}

int thread_count(const std::string& value) {
  char* end = nullptr;
  const long threads = std::strtol(value.c_str(), &end, 10);
  require(!value.empty() && *end == '\0' && threads >= 1 && threads <= kMaxThreads,
          "the option threads of the Larq delegate must be 1 to " + std::to_string(kMaxThreads) + ", not " + value);
  return static_cast<int>(threads);
}

}  // namespace
}  // namespace binvpr

#define BINVPR_EXPORT extern "C" __attribute__((visibility("default")))

// Options: `threads` (1 to 64, default 1), `kernel` (the name of one, default auto), and `profile` (any value: times are
// kept for binvpr_lce_profile).
BINVPR_EXPORT binvpr::Delegate* tflite_plugin_create_delegate(const char* const* keys, const char* const* values,
                                                              std::size_t count, void (*report_error)(const char*)) {
  try {
    int threads = 1;
    std::string kernel = "auto";
    bool is_profiled = false;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string key = keys[i];
      binvpr::require(key == "threads" || key == "kernel" || key == "profile",
                      "the Larq delegate has no option " + key + "; it has threads, kernel and profile");
      if (key == "threads") threads = binvpr::thread_count(values[i]);
      if (key == "kernel") kernel = values[i];
      is_profiled = is_profiled || key == "profile";
    }
    auto state = std::make_unique<binvpr::State>(binvpr::find_kernel(kernel), threads, is_profiled);
    state->delegate.data = state.get();
    state->delegate.Prepare = binvpr::claim;
    // Without it the runtime asks the operators, which it does not know, for the sizes of their outputs.
    state->delegate.flags = tflite_abi::kAllowDynamicTensors;
    return &state.release()->delegate;
  } catch (const std::exception& error) {
    if (report_error != nullptr) report_error(error.what());
    return nullptr;
  }
}

BINVPR_EXPORT void tflite_plugin_destroy_delegate(binvpr::Delegate* delegate) {
  if (delegate != nullptr) delete static_cast<binvpr::State*>(delegate->data);
}

// The names of the kernels that this processor can run, best first, with spaces between.
BINVPR_EXPORT const char* binvpr_lce_kernels() {
  static const std::string names = [] {
    std::string text;
    for (const binvpr::Kernel* kernel : binvpr::available_kernels()) {
      if (!text.empty()) text += ' ';
      text += kernel->name;
    }
    return text;
  }();
  return names.c_str();
}

// The profile since the last call of all models whose delegates have the option `profile`: a line for each operator of its
// name, its multiply-accumulates a run, and, of all runs, their number and the nanoseconds in total, of staging, counting
// and output, with tabs between. No model may run meanwhile. Valid until the next call.
BINVPR_EXPORT const char* binvpr_lce_profile() {
  try {
    auto& all = binvpr::profiled();
    const std::lock_guard<std::mutex> lock(all.mutex);
    all.text.clear();
    for (binvpr::Partition* partition : all.partitions) all.text += partition->take_profile();
    return all.text.c_str();
  } catch (const std::exception&) {  // there is not enough memory
    return "";
  }
}

// Writes the Hamming distances [count] of descriptors [count][words] to the nearest of queries [views][words], one at
// least, of words of 64 bits; returns whether there is such a kernel.
BINVPR_EXPORT bool binvpr_lce_hamming(const char* kernel, const std::uint8_t* descriptors, std::size_t count,
                                      std::size_t words, const std::uint8_t* queries, std::size_t views,
                                      std::uint32_t* distances) {
  try {
    binvpr::find_kernel(kernel).hamming(descriptors, count, words, queries, views, distances);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

// As binvpr::nearest_two; returns whether there are such a kernel, as few rows and words as it takes, and enough memory.
BINVPR_EXPORT bool binvpr_lce_nearest_two(const char* kernel, const std::uint8_t* these, std::size_t these_count,
                                          const std::uint8_t* those, std::size_t those_count, std::size_t words,
                                          std::int32_t* nearest, std::uint16_t* distance, std::uint16_t* second,
                                          std::int32_t* back) {
  if (words < 1 || words > binvpr::kMostMatchWords || std::max(these_count, those_count) > binvpr::kMostMatchRows) {
    return false;
  }
  try {
    binvpr::nearest_two(binvpr::find_kernel(kernel), these, these_count, those, those_count, words,
                        {nearest, distance, second, back});
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

// As binvpr::decode_features, with its maps one by one and the pixels' width and height; returns how many features there
// are, or -1 where there is no such kernel, not enough memory, or a size that is 0 or out of range.
BINVPR_EXPORT std::int64_t binvpr_lce_decode_features(
    const char* kernel, std::size_t rows, std::size_t columns, std::size_t bits, const std::int8_t* descriptors,
    const std::int8_t* keypoints, const std::int8_t* reliability, std::size_t width, std::size_t height, std::size_t most,
    float* points, float* scores, std::uint8_t* found_descriptors) {
  if (rows < 1 || columns < 1 || std::max(rows, columns) > binvpr::kMostCells || bits < 8 || bits % 8 != 0 ||
      bits > binvpr::kMostDescriptorBits || width < 1 || width > binvpr::kCell * columns || height < 1 ||
      height > binvpr::kCell * rows || most < 1 || most > binvpr::kMostFeatures) {
    return -1;
  }
  try {
    const binvpr::FeatureMaps maps{rows, columns, bits, descriptors, keypoints, reliability};
    return static_cast<std::int64_t>(binvpr::decode_features(binvpr::find_kernel(kernel), maps, width, height, most,
                                                             {points, scores, found_descriptors}));
  } catch (const std::exception&) {
    return -1;
  }
}

// As binvpr::epipolar_inliers; returns -1 where there are too many matches or not enough memory.
BINVPR_EXPORT std::int64_t binvpr_lce_epipolar_inliers(const float* here, const float* there, std::size_t count,
                                                       float tolerance, std::uint8_t* inliers) {
  if (count > binvpr::kMostEpipolarMatches) return -1;
  try {
    return static_cast<std::int64_t>(binvpr::epipolar_inliers(here, there, count, tolerance, inliers));
  } catch (const std::exception&) {
    return -1;
  }
}

// As binvpr::shrink; returns false where there is not enough memory.
BINVPR_EXPORT bool binvpr_lce_shrink(const std::uint8_t* pixels, std::size_t height, std::size_t width, std::size_t stride,
                                     std::size_t to_height, std::size_t to_width, std::uint8_t* to) {
  try {
    binvpr::shrink({pixels, height, width, stride}, to_height, to_width, to);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

// How many multiply-accumulates `rounds` rounds of a kernel's counting instructions do; 0 for a kernel not there.
BINVPR_EXPORT double binvpr_lce_peak(const char* kernel, long rounds) {
  try {
    return binvpr::find_kernel(kernel).peak(rounds);
  } catch (const std::exception&) {
    return 0;
  }
}
