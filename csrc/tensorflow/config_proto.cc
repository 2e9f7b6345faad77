#include "tensorflow/config_proto.h"

namespace hw3tf {
namespace {

// Reads a protocol buffer's base-128 number; returns the position after it, or
// nullptr at the end of the data.
const uint8_t* ReadVarint(const uint8_t* at, const uint8_t* end,
                          uint64_t* value) {
  *value = 0;
  for (int shift = 0; at < end && shift < 64; shift += 7) {
    const uint8_t byte = *at++;
    *value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (!(byte & 0x80)) return at;
  }
  return nullptr;
}

}  // namespace

int FindIntraOpThreads(const uint8_t* at, const uint8_t* end) {
  while (at && at < end) {
    uint64_t key, value;
    at = ReadVarint(at, end, &key);
    if (!at) break;
    switch (key & 7) {
      case 0:
        at = ReadVarint(at, end, &value);
        if (at && key >> 3 == 2)
          return static_cast<int32_t>(value) > 0 ? static_cast<int32_t>(value)
                                                 : 0;
        break;
      case 1:
        at = end - at < 8 ? nullptr : at + 8;
        break;
      case 2:
        at = ReadVarint(at, end, &value);
        if (at)
          at = value > static_cast<uint64_t>(end - at) ? nullptr : at + value;
        break;
      case 5:
        at = end - at < 4 ? nullptr : at + 4;
        break;
      default:
        return 0;
    }
  }
  return 0;
}

}  // namespace hw3tf
