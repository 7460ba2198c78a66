#include "frame.h"

#include <endian.h>

#include <cstring>

namespace hostdev {

namespace {

constexpr size_t kRequestFixed = 4 + 1 + 2;
constexpr size_t kAnswerFixed = 4 + 4 + 1;

void append_u32(std::string& to, uint32_t v) {
  v = htole32(v);
  to.append(reinterpret_cast<const char*>(&v), sizeof v);
}

uint32_t u32_at(std::string_view from, size_t at) {
  uint32_t v = 0;
  memcpy(&v, from.data() + at, sizeof v);
  return le32toh(v);
}

size_t byte_at(std::string_view from, size_t at) {
  return static_cast<unsigned char>(from[at]);
}

}  // namespace

size_t frame_size(std::string_view bytes) {
  return u32_at(bytes, 0);
}

std::string encode(const Request& request) {
  const size_t size = kRequestFixed + request.path.size() + request.value.size();
  if (size > kLargestRequest) return {};
  std::string out;
  append_u32(out, static_cast<uint32_t>(size));
  append_u32(out, request.id);
  out.push_back(request.operation);
  out.push_back(static_cast<char>(request.path.size() & 0xffU));
  out.push_back(static_cast<char>(request.path.size() >> 8U));
  return out + request.path + request.value;
}

std::string encode(const Answer& answer) {
  std::string out;
  append_u32(out, static_cast<uint32_t>(kAnswerFixed + answer.bytes.size()));
  append_u32(out, answer.id);
  append_u32(out, static_cast<uint32_t>(answer.error));
  out.push_back(static_cast<char>(answer.call));
  return out + answer.bytes;
}

std::optional<Request> decode_request(std::string_view body) {
  if (body.size() < kRequestFixed || body.size() > kLargestRequest) return std::nullopt;
  const size_t path_size = byte_at(body, 5) | byte_at(body, 6) << 8U;
  if (kRequestFixed + path_size > body.size()) return std::nullopt;
  return Request{u32_at(body, 0), body[4], std::string(body.substr(kRequestFixed, path_size)),
                 std::string(body.substr(kRequestFixed + path_size))};
}

std::optional<Answer> decode_answer(std::string_view body) {
  if (body.size() < kAnswerFixed || body.size() > kLargestAnswer) return std::nullopt;
  const size_t call = byte_at(body, 8);
  return Answer{u32_at(body, 0), static_cast<int>(u32_at(body, 4)),
                call <= static_cast<size_t>(Call::kNetlinkSet) ? static_cast<Call>(call) : Call::kNone,
                std::string(body.substr(kAnswerFixed))};
}

}  // namespace hostdev
