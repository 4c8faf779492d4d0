// SPDX-License-Identifier: Apache-2.0
// TFLite's own operators that we run where they stand beside ours: what shortcuts are made of, and what brings an image
// into the form that a network begins with. Passing tensors to the runtime and back would take longer than they do.
#pragma once

#include <memory>

#include "operator.h"

namespace binvpr {

// Where an operator is worth running: behind one of ours, only between two of them, or before one.
enum class Place { kNowhere, kBehind, kBetween, kBefore };

Place place_of(const NodeFacts& node);

// Null where the node has a form that we do not run. Throws Refusal.
std::unique_ptr<Operator> make_surrounding(const NodeFacts& node, const Kernel& kernel);

}  // namespace binvpr
