// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "operator.h"

namespace binvpr {

// Operators of the graph that follow each other and are all ours. Tensors between them live in buffers of our own,
// since the runtime gives memory only to those that cross the border.
class Partition {
 public:
  struct Node {
    NodeFacts facts;
    std::vector<int> inputs;   // tensors that are not constant
    std::vector<int> outputs;  // tensors
  };

  // `nodes` in an order in which they can run; `results` are the tensors that others read.
  Partition(const std::vector<Node>& nodes, std::vector<int> results, const Kernel& kernel);

  // Gets ready for inputs of the given sizes and returns those of the results, in their order. Throws Refusal.
  std::vector<Dims> prepare(const std::map<int, Dims>& inputs);

  // `address` gives the memory of a tensor that crosses the border.
  template <typename Address>
  void run(Address address, ThreadPool& pool) {
    for (Step& step : steps_) {
      for (std::size_t i = 0; i < step.inputs.size(); ++i) step.input_data[i] = data(step.inputs[i], address);
      for (std::size_t i = 0; i < step.outputs.size(); ++i) step.output_data[i] = data(step.outputs[i], address);
      const std::int64_t begun = is_profiled_ ? nanoseconds_now() : 0;
      step.work->run(step.input_data, step.output_data, pool);
      if (is_profiled_) step.times.total += nanoseconds_now() - begun, ++step.times.runs;
    }
  }

  // Measures all runs from now on, and the parts of layers, which one thread alone must run.
  void profile(bool measures_parts);

  // A line for each operator, in the order in which they run, of its name, its work, and its Times; these begin anew.
  std::string take_profile();

 private:
  static constexpr int kUnread = -1;

  struct Step {
    std::string name;
    std::unique_ptr<Operator> work;
    std::vector<int> inputs;
    std::vector<int> outputs;  // kUnread where nobody reads it
    std::vector<const void*> input_data;
    std::vector<void*> output_data;
    std::string fused;  // names of what is done in the same pass
    Times times;
  };

  template <typename Address>
  void* data(int tensor, Address address) const {
    if (tensor == kUnread) return nullptr;
    const auto slot = slot_of_.find(tensor);
    return slot == slot_of_.end() ? address(tensor) : slots_[slot->second].data();
  }

  bool is_result(int tensor) const;
  int readers(int tensor) const;
  int writer(int tensor) const;
  bool is_read_after(std::size_t step, int tensor) const;
  int replaced_side(std::size_t step) const;
  int only_reader(int tensor) const;
  void fuse_additions();
  void fuse_repetitions();
  void fuse_packing();
  void fuse_quantizations();
  void assign_slots(const std::map<int, Dims>& dims);

  bool is_profiled_ = false;
  std::vector<Step> steps_;
  std::vector<int> results_;
  std::map<int, std::size_t> slot_of_;  // of the tensors inside
  std::vector<AlignedBuffer> slots_;
};

}  // namespace binvpr
