// SPDX-License-Identifier: Apache-2.0
#include "options.h"

#include <cstring>
#include <limits>

#include "refusal.h"

namespace binvpr {
namespace {

enum FlexType : std::uint8_t { kInt = 1, kUInt = 2, kIndirectInt = 6, kIndirectUInt = 7, kMap = 9, kBool = 26 };

constexpr char kDamaged[] = "the options of a Larq operator are damaged; convert the model again";

class Buffer {
 public:
  Buffer(const std::uint8_t* bytes, std::size_t size) : bytes_(bytes), size_(size) {}

  std::uint64_t unsigned_at(std::size_t position, std::size_t width) const {
    check(position, width);
    std::uint64_t value = 0;
    for (std::size_t i = width; i-- > 0;) value = value << 8 | bytes_[position + i];
    return value;
  }

  std::int64_t signed_at(std::size_t position, std::size_t width) const {
    const unsigned unused_bits = 64 - 8 * static_cast<unsigned>(width);
    return static_cast<std::int64_t>(unsigned_at(position, width) << unused_bits) >> unused_bits;
  }

  // An offset counts backwards from where it stands.
  std::size_t follow(std::size_t position, std::size_t width) const {
    const std::uint64_t offset = unsigned_at(position, width);
    require(offset <= position, kDamaged);
    return position - static_cast<std::size_t>(offset);
  }

  std::string text_at(std::size_t position) const {
    check(position, 1);
    const void* end = std::memchr(bytes_ + position, 0, size_ - position);
    require(end != nullptr, kDamaged);
    return {reinterpret_cast<const char*>(bytes_ + position), static_cast<const char*>(end)};
  }

  void check(std::size_t position, std::size_t length) const {
    require(length <= size_ && position <= size_ - length, kDamaged);
  }

 private:
  const std::uint8_t* bytes_;
  std::size_t size_;
};

std::size_t before(std::size_t position, std::size_t distance) {
  require(distance <= position, kDamaged);
  return position - distance;
}

std::size_t checked_width(std::uint64_t width) {
  require(width == 1 || width == 2 || width == 4 || width == 8, kDamaged);
  return static_cast<std::size_t>(width);
}

// What may be shown to the user.
bool is_name(const std::string& text) {
  constexpr char kLetters[] = "0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  return text.size() < 64 && text.find_first_not_of(kLetters) == std::string::npos;
}

std::int64_t integer_at(const Buffer& buffer, std::size_t position, std::size_t width, std::uint8_t packed_type,
                        const std::string& name) {
  const auto type = static_cast<FlexType>(packed_type >> 2);
  if (type == kIndirectInt || type == kIndirectUInt) {
    position = buffer.follow(position, width);
    width = std::size_t{1} << (packed_type & 3);
  }
  switch (type) {
    case kInt:
    case kIndirectInt:
      return buffer.signed_at(position, width);
    case kUInt:
    case kIndirectUInt:
    case kBool: {
      const std::uint64_t value = buffer.unsigned_at(position, width);
      require(value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()), kDamaged);
      return static_cast<std::int64_t>(value);
    }
    default:
      throw Refusal("the option " + name + " of a Larq operator is no integer; convert the model again");
  }
}

}  // namespace

std::map<std::string, std::int32_t> read_options(const std::uint8_t* bytes, std::size_t size) {
  std::map<std::string, std::int32_t> options;
  if (size == 0) return options;
  require(bytes != nullptr && size >= 3, kDamaged);
  const Buffer buffer(bytes, size);

  // The buffer ends with the root, its packed type and its width.
  const std::size_t root_width = checked_width(bytes[size - 1]);
  const std::uint8_t root_type = bytes[size - 2];
  require(root_type >> 2 == kMap, kDamaged);
  const std::size_t values = buffer.follow(before(size - 2, root_width), root_width);

  // Before a map's values stand their number, the width of its keys and the offset of its keys.
  const std::size_t width = std::size_t{1} << (root_type & 3);
  const std::uint64_t count = buffer.unsigned_at(before(values, width), width);
  const std::size_t key_width = checked_width(buffer.unsigned_at(before(values, 2 * width), width));
  const std::size_t keys = buffer.follow(before(values, 3 * width), width);
  require(count <= size, kDamaged);
  const auto length = static_cast<std::size_t>(count);
  require(buffer.unsigned_at(before(keys, key_width), key_width) == count, kDamaged);
  buffer.check(values, length * width + length);  // the types follow the values, a byte each

  for (std::size_t i = 0; i < length; ++i) {
    const std::string name = buffer.text_at(buffer.follow(keys + i * key_width, key_width));
    require(is_name(name), kDamaged);
    const std::int64_t value =
        integer_at(buffer, values + i * width, width, bytes[values + length * width + i], name);
    require(value >= std::numeric_limits<std::int32_t>::min() && value <= std::numeric_limits<std::int32_t>::max(),
            "the option " + name + " of a Larq operator is out of range; convert the model again");
    require(options.emplace(name, static_cast<std::int32_t>(value)).second, kDamaged);
  }
  return options;
}

std::int32_t OptionTaker::take(const char* name) {
  const auto found = options_.find(name);
  require(found != options_.end(), owner_ + " lacks the option " + name + "; convert the model again");
  const std::int32_t value = found->second;
  options_.erase(found);
  return value;
}

bool OptionTaker::take_same_padding() {
  const std::int32_t padding = take("padding");
  require(padding == 0 || padding == 1, "the option padding of " + owner_ + " must be 0 or 1; convert the model again");
  return padding == 0;
}

void OptionTaker::require_none_left() const {
  if (options_.empty()) return;
  throw Refusal(owner_ + " has the unknown option " + options_.begin()->first + "; use a newer version of this package");
}

}  // namespace binvpr
