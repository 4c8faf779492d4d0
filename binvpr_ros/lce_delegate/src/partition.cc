// SPDX-License-Identifier: Apache-2.0
#include "partition.h"

#include <algorithm>

#include "convolution.h"
#include "shortcuts.h"

namespace binvpr {
namespace {

constexpr std::size_t kElementBytes = 4;  // tensors between our operators are float32 or packed bits; int8 needs less

}  // namespace

Partition::Partition(const std::vector<Node>& nodes, std::vector<int> results, const Kernel& kernel)
    : results_(std::move(results)) {
  for (const Node& node : nodes) {
    steps_.push_back({name_of(node.facts), make_operator(node.facts, kernel), node.inputs, node.outputs, {}, {}, {}, {}});
  }
  fuse_additions();
  fuse_repetitions();
  fuse_packing();
  fuse_quantizations();
  for (Step& step : steps_) {
    step.input_data.resize(step.inputs.size());
    step.output_data.resize(step.outputs.size());
  }
}

bool Partition::is_result(int tensor) const {
  return std::find(results_.begin(), results_.end(), tensor) != results_.end();
}

int Partition::readers(int tensor) const {
  std::ptrdiff_t count = 0;
  for (const Step& step : steps_) count += std::count(step.inputs.begin(), step.inputs.end(), tensor);
  return static_cast<int>(count);
}

// The index of the step that writes `tensor`, or -1.
int Partition::writer(int tensor) const {
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const std::vector<int>& outputs = steps_[i].outputs;
    if (std::find(outputs.begin(), outputs.end(), tensor) != outputs.end()) return static_cast<int>(i);
  }
  return -1;
}

// convolution -> ADD: the convolution adds the other side while its result is in registers.
void Partition::fuse_additions() {
  for (std::size_t i = 0; i < steps_.size();) {
    if (steps_[i].name != "ADD") {
      ++i;
      continue;
    }
    // Of the two sides the one that is computed last; by then the other is there.
    std::vector<int> sides = steps_[i].inputs;
    if (writer(sides[0]) > writer(sides[1])) std::swap(sides[0], sides[1]);
    const int last = writer(sides[1]);
    auto* convolution =
        last < 0 ? nullptr : dynamic_cast<BinaryConvolution*>(steps_[static_cast<std::size_t>(last)].work.get());
    if (convolution == nullptr || !convolution->gives_float() || is_result(sides[1]) || readers(sides[1]) != 1 ||
        steps_[static_cast<std::size_t>(last)].inputs.size() != 1) {
      ++i;
      continue;
    }
    convolution->add_shortcut();
    steps_[static_cast<std::size_t>(last)].fused += " + ADD";
    steps_[static_cast<std::size_t>(last)].inputs.push_back(sides[0]);
    steps_[static_cast<std::size_t>(last)].outputs = steps_[i].outputs;
    steps_.erase(steps_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

// The index of the step that reads an inner tensor, where one alone does and once, or -1.
int Partition::only_reader(int tensor) const {
  if (is_result(tensor) || readers(tensor) != 1) return -1;
  const auto reads = [tensor](const Step& step) {
    return std::find(step.inputs.begin(), step.inputs.end(), tensor) != step.inputs.end();
  };
  return static_cast<int>(std::find_if(steps_.begin(), steps_.end(), reads) - steps_.begin());
}

// A tensor with itself, beside each other: a shortcut into more channels; or, with DEPTH_TO_SPACE behind, into more pixels.
// What adds it reads the tensor itself, again and again.
void Partition::fuse_repetitions() {
  const auto step = [&](int index) -> Step& { return steps_[static_cast<std::size_t>(index)]; };
  for (int i = 0; i < static_cast<int>(steps_.size());) {
    const std::vector<int> parts = step(i).name == "CONCATENATION" ? step(i).inputs : std::vector<int>();
    const auto times = static_cast<int>(parts.size());
    const bool repeats = times > 1 && std::count(parts.begin(), parts.end(), parts[0]) == times;
    const int reader = repeats ? only_reader(step(i).outputs[0]) : -1;
    if (reader < 0) {
      ++i;
      continue;
    }
    auto* convolution = dynamic_cast<BinaryConvolution*>(step(reader).work.get());
    if (convolution != nullptr && step(reader).inputs.size() == 2 && step(reader).inputs[1] == step(i).outputs[0] &&
        convolution->can_repeat_shortcut(times)) {
      convolution->repeat_shortcut(times);
      step(reader).inputs[1] = parts[0];
      step(reader).fused += " + CONCATENATION";
      steps_.erase(steps_.begin() + i);
      continue;
    }
    const auto* depth_to_space = dynamic_cast<DepthToSpace*>(step(reader).work.get());
    const int adder = depth_to_space != nullptr ? only_reader(step(reader).outputs[0]) : -1;
    auto* addition = adder >= 0 ? dynamic_cast<Addition*>(step(adder).work.get()) : nullptr;
    if (addition == nullptr || depth_to_space->side() * depth_to_space->side() != times) {
      ++i;
      continue;
    }
    std::vector<int>& sides = step(adder).inputs;
    if (sides[1] == step(reader).outputs[0]) std::swap(sides[0], sides[1]);
    sides[0] = parts[0];
    addition->enlarge_first(depth_to_space->side());
    step(adder).fused += " + CONCATENATION + DEPTH_TO_SPACE";
    steps_.erase(steps_.begin() + reader);
    steps_.erase(steps_.begin() + i);
  }
}

// [convolution ->] ADD -> LceQuantize: the former packs the signs too, and keeps the floats only if they are read.
void Partition::fuse_packing() {
  for (std::size_t i = 0; i < steps_.size();) {
    const int source = steps_[i].name == "LceQuantize" ? writer(steps_[i].inputs[0]) : -1;
    Operator* const work = source < 0 ? nullptr : steps_[static_cast<std::size_t>(source)].work.get();
    if (work == nullptr || !work->can_pack()) {
      ++i;
      continue;
    }
    work->also_pack();
    steps_[static_cast<std::size_t>(source)].fused += " + LceQuantize";
    std::vector<int>& outputs = steps_[static_cast<std::size_t>(source)].outputs;
    outputs.push_back(steps_[i].outputs[0]);
    steps_.erase(steps_.begin() + static_cast<std::ptrdiff_t>(i));
    if (readers(outputs[0]) == 0 && !is_result(outputs[0])) outputs[0] = kUnread;
  }
}

// convolution [-> ADD] -> QUANTIZE: the convolution gives int8 where nobody else reads the floats.
void Partition::fuse_quantizations() {
  for (std::size_t i = 0; i < steps_.size();) {
    const auto* quantization = dynamic_cast<FloatToInt8*>(steps_[i].work.get());
    const int floats = quantization != nullptr ? steps_[i].inputs[0] : kUnread;
    const int source = quantization != nullptr && only_reader(floats) >= 0 ? writer(floats) : -1;
    auto* convolution =
        source < 0 ? nullptr : dynamic_cast<BinaryConvolution*>(steps_[static_cast<std::size_t>(source)].work.get());
    if (convolution == nullptr || !convolution->gives_float()) {
      ++i;
      continue;
    }
    convolution->also_quantize(quantization->inverse_scale(), quantization->zero_point());
    steps_[static_cast<std::size_t>(source)].fused += " + QUANTIZE";
    steps_[static_cast<std::size_t>(source)].outputs[0] = steps_[i].outputs[0];
    steps_.erase(steps_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void Partition::profile(bool measures_parts) {
  is_profiled_ = true;
  for (Step& step : steps_) step.work->times = measures_parts ? &step.times : nullptr;
}

std::string Partition::take_profile() {
  std::string lines;
  for (Step& step : steps_) {
    const Times& times = step.times;
    lines += step.name + step.fused;
    for (const std::int64_t value : {step.work->work(), times.runs, times.total, times.staging, times.counting, times.output}) {
      lines += '\t' + std::to_string(value);
    }
    lines += '\n';
    step.times = {};
  }
  return lines;
}

std::vector<Dims> Partition::prepare(const std::map<int, Dims>& inputs) {
  std::map<int, Dims> dims = inputs;
  for (Step& step : steps_) {
    std::vector<Dims> sizes;
    for (const int tensor : step.inputs) sizes.push_back(dims.at(tensor));
    const std::vector<Dims> outputs = step.work->prepare(sizes);
    for (std::size_t i = 0; i < step.outputs.size(); ++i) {
      if (step.outputs[i] != kUnread) dims[step.outputs[i]] = outputs[i];
    }
  }
  assign_slots(dims);
  std::vector<Dims> results;
  for (const int tensor : results_) results.push_back(dims.at(tensor));
  return results;
}

bool Partition::is_read_after(std::size_t step, int tensor) const {
  return std::any_of(steps_.begin() + static_cast<std::ptrdiff_t>(step) + 1, steps_.end(), [tensor](const Step& later) {
    return std::find(later.inputs.begin(), later.inputs.end(), tensor) != later.inputs.end();
  });
}

// The side of a step's addition whose place its first result may take; kUnread where there is none.
int Partition::replaced_side(std::size_t step) const {
  const std::vector<int>& inputs = steps_[step].inputs;
  const int result = steps_[step].outputs[0];
  if (!steps_[step].work->may_replace_second_input() || inputs.size() != 2 || result == kUnread || is_result(result)) return kUnread;
  const int side = inputs[1];
  return slot_of_.count(side) > 0 && side != inputs[0] && !is_read_after(step, side) ? side : kUnread;
}

// Gives each inner tensor a buffer, which the next tensor takes over once nobody reads it: what was just written is read
// from a near cache.
//
// An addition's result takes the place of the side that is added, where that is read for the last time: a cache then has
// to hold one image instead of two.
void Partition::assign_slots(const std::map<int, Dims>& dims) {
  slot_of_.clear();
  std::vector<std::size_t> sizes;
  std::vector<std::size_t> free;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const int replaced = replaced_side(i);
    for (const int tensor : steps_[i].outputs) {
      if (tensor == kUnread || is_result(tensor)) continue;
      if (replaced != kUnread && tensor == steps_[i].outputs[0]) {
        slot_of_[tensor] = slot_of_.at(replaced);
        continue;
      }
      if (free.empty()) {
        free.push_back(sizes.size());
        sizes.push_back(0);
      }
      slot_of_[tensor] = free.back();
      free.pop_back();
      std::size_t& size = sizes[slot_of_[tensor]];
      size = std::max(size, element_count(dims.at(tensor)) * kElementBytes);
    }
    for (const auto& [tensor, slot] : slot_of_) {
      const std::vector<int>&inputs = steps_[i].inputs, &outputs = steps_[i].outputs;
      const bool is_here = std::find(inputs.begin(), inputs.end(), tensor) != inputs.end() ||
                           std::find(outputs.begin(), outputs.end(), tensor) != outputs.end();
      if (is_here && tensor != replaced && !is_read_after(i, tensor)) free.push_back(slot);
    }
  }
  slots_.clear();
  for (const std::size_t size : sizes) slots_.emplace_back(size);
}

}  // namespace binvpr
