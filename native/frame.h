// The one wire format between the addon and `hostdev-native write`: a frame is its size (32 bits, little
// endian, as everything here) and so many bytes.
// Request: id (32 bits), operation (8), size of the path (16), path, value. Answer: id (32), errno (32), the
// call that failed (8), bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hostdev {

constexpr size_t kFrameHead = 4;
// Beyond them a frame is none: whoever sends one has lost its way.
constexpr size_t kLargestRequest = 8192;
// A link with all the VFs that it can have (native/netlink.cc, kLargest) and what is around it.
constexpr size_t kLargestAnswer = size_t{256} * 1024;

enum class Call : uint8_t { kNone, kOpen, kWrite, kRead, kTruncate, kClose, kNetlink, kNetlinkSet };

struct Request {
  uint32_t id = 0;
  char operation = 0;
  std::string path;
  std::string value;
};

struct Answer {
  uint32_t id = 0;
  int error = 0;
  Call call = Call::kNone;
  std::string bytes;
};

// How many bytes follow the first kFrameHead of `bytes`, which must have as many.
size_t frame_size(std::string_view bytes);

// A frame, head and all; empty for a request that is larger than kLargestRequest.
std::string encode(const Request& request);
std::string encode(const Answer& answer);

// What a frame without its head says; nothing where it is none. A call that nobody knows is kNone.
std::optional<Request> decode_request(std::string_view body);
std::optional<Answer> decode_answer(std::string_view body);

}  // namespace hostdev
