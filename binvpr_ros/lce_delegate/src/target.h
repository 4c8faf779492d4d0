// SPDX-License-Identifier: Apache-2.0
// Compiles a stretch of a file for more of a processor than the rest of the library may count on.
//
// The stretch begins before the file's other includes, so that the loops in kernel_loops.h are compiled for it too;
// the standard headers are therefore included here, ahead of it, and stay plain.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "kernel.h"

#define BINVPR_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define BINVPR_TARGET_BEGIN(features) \
  BINVPR_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define BINVPR_TARGET_END BINVPR_PRAGMA(clang attribute pop)
#else
#define BINVPR_TARGET_BEGIN(features) BINVPR_PRAGMA(GCC push_options) BINVPR_PRAGMA(GCC target(features))
#define BINVPR_TARGET_END BINVPR_PRAGMA(GCC pop_options)
#endif
