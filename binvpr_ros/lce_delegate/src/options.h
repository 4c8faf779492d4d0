// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace binvpr {

// Reads the options of a custom operator, a flexbuffer map from names to integers of at most 32 bits. No bytes at all
// are an empty map. Every offset is checked: the bytes come from a file that may be damaged. Throws Refusal.
// Format: https://flatbuffers.dev/internals/ (section FlexBuffers).
std::map<std::string, std::int32_t> read_options(const std::uint8_t* bytes, std::size_t size);

}  // namespace binvpr
