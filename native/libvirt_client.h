// A few threads that call libvirt, and what comes of it until somebody takes it. They are ours and not
// libuv's: a daemon that hangs would hold all four of those, and with them every read of a file. Whoever asks
// counts the time, and abandons what is late: what was not begun then never is; a thread that is still at one
// is replaced. Ownership: the threads have the Client between them and the Handle; they end when the Handle
// has gone, and the last one closes the connections. A thread that hangs in libvirt is left to it, at the
// process' end too.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>

#include "libvirt_calls.h"

namespace hostdev::libvirt {

struct Done {
  uint64_t id = 0;
  Reply reply;
};

struct Taken {
  std::vector<Done> done;
  std::vector<Event> events;
  // Events were dropped before these, since nobody took them in time.
  bool gap = false;
};

class Client : public std::enable_shared_from_this<Client> {
 public:
  enum class State { kQueued, kRunning, kDone };

  // `wake` is called when there is something to take, from any thread, with a lock held: it never waits.
  static std::shared_ptr<Client> create(unsigned threads, std::function<void()> wake);

  // Only create() has a Key, so that no Client is without a shared_ptr.
  class Key {
    friend class Client;
    Key() = default;
  };
  Client(Key /*key*/, unsigned threads, std::function<void()> wake)
      : most_(threads), wake_(std::move(wake)) {}

  uint64_t ask(Request request);
  // Closes a connection. Nobody hears of it, it is never refused nor abandoned, and what it waits for keeps
  // no call waiting.
  void release(unsigned connection);
  // Its answer is not wanted any more. kQueued: it was not begun, and will not be.
  State abandon(uint64_t id);
  Taken take();
  // Nobody is woken any more, what is queued is dropped, the threads end.
  void close();

 private:
  struct Task {
    uint64_t id = 0;
    Request request;
    bool is_heard = true;
  };

  void hear(Event event);
  void work();
  void start_worker();
  void replace_lost();
  void queue_close(unsigned connection);
  void finish(uint64_t id, Reply reply);

  const unsigned most_;
  std::mutex mutex_;
  std::condition_variable more_;
  std::function<void()> wake_;
  bool is_closed_ = false;
  uint64_t last_ = 0;
  std::deque<Task> queue_;
  // What threads are at; true: nobody waits for it (any more).
  std::map<uint64_t, bool> running_;
  unsigned threads_ = 0;
  unsigned idle_ = 0;
  // Threads that are at what nobody waits for: they are replaced.
  unsigned lost_ = 0;
  std::vector<Done> done_;
  std::deque<Event> events_;
  bool gap_ = false;
  std::unique_ptr<Connections> connections_;
};

}  // namespace hostdev::libvirt
