// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernel.h"
#include "profile.h"
#include "tensor.h"
#include "thread_pool.h"

namespace binvpr {

// A node of the graph as the runtime hands it over.
struct NodeFacts {
  std::string name;  // of a custom operator
  int builtin = tflite_abi::kCustom;
  const void* builtin_options = nullptr;
  const std::uint8_t* custom_options = nullptr;
  std::size_t custom_options_size = 0;
  std::vector<TensorFacts> inputs;
  std::vector<TensorFacts> outputs;
};

// One operator, or several that are computed in one pass.
class Operator {
 public:
  virtual ~Operator() = default;
  Operator() = default;
  Operator(const Operator&) = delete;
  Operator& operator=(const Operator&) = delete;

  // Given the sizes of the non-constant inputs, gets ready for them and returns those of the outputs. Throws Refusal.
  virtual std::vector<Dims> prepare(const std::vector<Dims>& inputs) = 0;

  // Buffers in the order of prepare(); an output that nobody reads is null.
  virtual void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, ThreadPool& pool) = 0;

  // Whether the first output may have the buffer of the second input.
  virtual bool may_replace_second_input() const { return false; }

  // Whether the operator could give the signs of its first output too, packed, as a second one; and makes it do so.
  virtual bool can_pack() const { return false; }
  virtual void also_pack() {}

  // Multiply-accumulates of a run, after prepare(); 0 for what does none.
  virtual std::int64_t work() const { return 0; }

  // To be filled by layers, with one thread; null where no profile is wanted.
  Times* times = nullptr;
};

// Reads a node that `is_ours`, checking all that can be checked before the input's size is known. Throws Refusal.
std::unique_ptr<Operator> make_operator(const NodeFacts& node, const Kernel& kernel);

// What a profile calls the operator of a node.
std::string name_of(const NodeFacts& node);

// Whether the node is one of Larq's, which nobody else can run.
bool is_larq(const NodeFacts& node);

// Whether the node is an int8 convolution that we run faster than the runtime does.
bool is_int8_layer(const NodeFacts& node);

}  // namespace binvpr
