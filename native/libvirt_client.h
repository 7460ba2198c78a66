// Calls to libvirt that nobody waits for: each is made on a thread of its own here, with the error that it
// left in that thread, and what came of it lies in one queue until whoever asked takes it. Deadlines are the
// asker's: he goes on without an answer, and the thread comes back when libvirt lets it (keepalive ends a
// call to a daemon that stands still, after connecting; a connect to one has no end).
//
// Ownership: the client lives as long as the process (its threads may be inside libvirt when the process
// ends, so that nothing of it is ever destroyed); it has the connections, each closed when it was asked for
// and its last call is back.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace hostdev::libvirt {

// What a call came to: rows of texts, in the order that libvirt_calls.h gives for each operation, or an
// error.
using Field = std::optional<std::string>;
using Rows = std::vector<std::vector<Field>>;

struct CallError {
  // virErrorNumber and virErrorDomain; 0 when libvirt left none.
  int code = 0;
  int domain = 0;
  // The function of libvirt that failed.
  std::string call;
  std::string message;
};

struct Answer {
  uint32_t id = 0;
  Rows rows;
  std::optional<CallError> error;
};

// What a daemon told without being asked.
struct Event {
  uint32_t connection = 0;
  // "lifecycle", "device-added", "device-removed", "device-removal-failed", "closed", or "gap": events before
  // this one were dropped, since nobody took them.
  std::string kind;
  std::string uuid;
  std::string name;
  // Of a device event: its alias.
  std::string alias;
  // Of a lifecycle: event and detail; of a close: the reason.
  int event = 0;
  int detail = 0;
};

struct Request {
  uint32_t id = 0;
  std::string operation;
  uint32_t connection = 0;
  std::vector<std::string> texts;
  uint32_t flags = 0;
};

// Calls that may be out at once; one more is refused with an error of its own (code 0, "too many").
constexpr size_t kMostThreads = 64;
// Events that lie untaken; one more drops the oldest.
constexpr size_t kMostEvents = 4096;

// `wake` is called from any thread when something is to be taken, and must not wait. Says why the library
// cannot be used; empty when it can. Starts the thread of libvirt's event loop, before the first connection
// is opened.
std::string start(std::function<void()> wake);

// Nothing is woken any more; calls that are out come back to nobody.
void stop();

void call(Request request);

// Where a connection's events go, from libvirt's own thread; it neither waits nor calls libvirt.
void tell(Event event);

// All that has come since it was last asked for, in order.
void take(std::vector<Answer>& answers, std::vector<Event>& events);

}  // namespace hostdev::libvirt
