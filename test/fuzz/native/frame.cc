// The frames between the addon and the writer: what is one says the same when it is made anew.
#include "frame.h"

#include "check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto text = text_of(data, size);
  if (const auto request = hostdev::decode_request(text)) {
    const auto again = hostdev::encode(*request);
    check(hostdev::frame_size(again) == size && again.substr(hostdev::kFrameHead) == text,
          "a request and back");
  }
  if (const auto answer = hostdev::decode_answer(text)) {
    const auto again = hostdev::decode_answer(std::string_view(hostdev::encode(*answer)).substr(4));
    check(again && again->id == answer->id && again->error == answer->error && again->call == answer->call &&
              again->bytes == answer->bytes,
          "an answer and back");
  }
  return 0;
}
