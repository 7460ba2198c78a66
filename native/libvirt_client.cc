#include "libvirt_client.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "libvirt_api.h"
#include "libvirt_calls.h"

namespace hostdev::libvirt {

namespace {

// A thread without work waits so long for more, and ends.
constexpr auto kIdle = std::chrono::seconds(2);

struct Client {
  std::mutex mutex;
  std::condition_variable work;
  std::function<void()> wake;
  std::deque<Request> requests;
  size_t threads = 0;
  size_t idle = 0;
  std::vector<Answer> answers;
  std::deque<Event> events;
  bool loop_runs = false;
};

// Never destroyed: threads of its own may be inside libvirt, or on their way back, when the process ends.
Client& client() {
  static auto* const the_one = std::make_unique<Client>().release();
  return *the_one;
}

void answered(Answer answer) {
  auto& c = client();
  const std::lock_guard lock(c.mutex);
  c.answers.push_back(std::move(answer));
  // Under the lock, so that after stop() nobody is woken.
  if (c.wake) c.wake();
}

void serve() {
  auto& c = client();
  std::unique_lock lock(c.mutex);
  for (;;) {
    c.idle += 1;
    const bool more = c.work.wait_for(lock, kIdle, [&] { return !c.requests.empty(); });
    c.idle -= 1;
    if (!more) break;
    const Request request = std::move(c.requests.front());
    c.requests.pop_front();
    lock.unlock();
    answered(perform(request));
    lock.lock();
  }
  c.threads -= 1;
}

Answer refusal(uint32_t id, std::string message) {
  Answer answer;
  answer.id = id;
  answer.error = CallError{0, 0, "", std::move(message)};
  return answer;
}

}  // namespace

std::string start(std::function<void()> wake) {
  std::string why;
  const Api& lib = api(why);
  if (!why.empty()) return why;
  auto& c = client();
  const std::lock_guard lock(c.mutex);
  c.wake = std::move(wake);
  if (c.loop_runs) return "";
  if (lib.virEventRegisterDefaultImpl() < 0) return "virEventRegisterDefaultImpl failed";
  try {
    std::thread([&lib] {
      // A failed round (EINTR, no memory) is tried again, and not in a circle without end.
      while (true)
        if (lib.virEventRunDefaultImpl() < 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }).detach();
  } catch (const std::system_error& e) {
    return e.what();
  }
  c.loop_runs = true;
  return "";
}

void stop() {
  auto& c = client();
  const std::lock_guard lock(c.mutex);
  c.wake = nullptr;
}

void call(Request request) {
  auto& c = client();
  std::unique_lock lock(c.mutex);
  const uint32_t id = request.id;
  if (c.idle <= c.requests.size()) {
    std::string refused;
    if (c.threads >= kMostThreads) {
      refused = "too many calls to libvirt are out";
    } else {
      try {
        std::thread(serve).detach();
        c.threads += 1;
      } catch (const std::system_error& e) {
        refused = e.what();
      }
    }
    if (!refused.empty()) {
      lock.unlock();
      answered(refusal(id, refused));
      return;
    }
  }
  c.requests.push_back(std::move(request));
  c.work.notify_one();
}

void tell(Event event) {
  auto& c = client();
  const std::lock_guard lock(c.mutex);
  if (!c.wake) return;
  if (c.events.size() >= kMostEvents) {
    // The first that is left says that there were others.
    c.events.pop_front();
    c.events.front() = Event{c.events.front().connection, "gap", "", "", "", 0, 0};
  }
  c.events.push_back(std::move(event));
  c.wake();
}

void take(std::vector<Answer>& answers, std::vector<Event>& events) {
  auto& c = client();
  const std::lock_guard lock(c.mutex);
  answers.swap(c.answers);
  events.assign(std::make_move_iterator(c.events.begin()), std::make_move_iterator(c.events.end()));
  c.events.clear();
}

}  // namespace hostdev::libvirt
