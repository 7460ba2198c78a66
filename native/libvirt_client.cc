#include "libvirt_client.h"

#include <algorithm>
#include <system_error>
#include <thread>

namespace hostdev::libvirt {

namespace {

// A thousand guests that stop at once; what is beyond is found by a look at the list.
constexpr size_t kMostEvents = 4096;
// Threads that hang in libvirt, beside those that work: a daemon that hangs is asked no more often than that.
constexpr unsigned kMostLost = 32;

}  // namespace

std::shared_ptr<Client> Client::create(unsigned threads, std::function<void()> wake) {
  auto client = std::make_shared<Client>(Key(), threads, std::move(wake));
  const std::weak_ptr<Client> weak = client;
  // The connections outlive no client, and their callbacks may.
  client->connections_ = std::make_unique<Connections>([weak](Event event) {
    if (const auto held = weak.lock()) held->hear(std::move(event));
  });
  return client;
}

uint64_t Client::ask(Request request) {
  const std::scoped_lock lock(mutex_);
  const uint64_t id = ++last_;
  if (is_closed_) return id;
  if (idle_ == 0 && lost_ >= kMostLost) {
    finish(id, {Fault{0, 0, "too many earlier calls hang", "pthread_create"}, {}});
    return id;
  }
  queue_.push_back({id, std::move(request)});
  if (queue_.size() > idle_ && threads_ < most_ + lost_) start_worker();
  more_.notify_one();
  return id;
}

void Client::release(unsigned connection) {
  const std::scoped_lock lock(mutex_);
  if (!is_closed_) queue_close(connection);
}

void Client::queue_close(unsigned connection) {
  queue_.push_back({++last_, {Op::kClose, connection, "", 0}, false});
  if (queue_.size() > idle_ && threads_ < most_ + lost_) start_worker();
  more_.notify_one();
}

Client::State Client::abandon(uint64_t id) {
  const std::scoped_lock lock(mutex_);
  const auto queued = std::find_if(queue_.begin(), queue_.end(), [id](const Task& t) { return t.id == id; });
  if (queued != queue_.end()) {
    queue_.erase(queued);
    return State::kQueued;
  }
  const auto running = running_.find(id);
  if (running == running_.end()) return State::kDone;
  if (!running->second) {
    running->second = true;
    ++lost_;
    replace_lost();
  }
  return State::kRunning;
}

void Client::replace_lost() {
  if (!queue_.empty() && idle_ == 0 && lost_ < kMostLost) start_worker();
}

Taken Client::take() {
  const std::scoped_lock lock(mutex_);
  Taken taken{std::move(done_), {events_.begin(), events_.end()}, gap_};
  done_.clear();
  events_.clear();
  gap_ = false;
  return taken;
}

void Client::close() {
  const std::scoped_lock lock(mutex_);
  is_closed_ = true;
  wake_ = nullptr;
  queue_.clear();
  done_.clear();
  events_.clear();
  more_.notify_all();
}

void Client::hear(Event event) {
  const std::scoped_lock lock(mutex_);
  if (is_closed_) return;
  // The newest say most: of old ones the list tells.
  if (events_.size() >= kMostEvents) {
    events_.pop_front();
    gap_ = true;
  }
  events_.push_back(std::move(event));
  wake_();
}

void Client::finish(uint64_t id, Reply reply) {
  if (is_closed_) return;
  done_.push_back({id, std::move(reply)});
  wake_();
}

void Client::start_worker() {
  try {
    std::thread([self = shared_from_this()] { self->work(); }).detach();
    ++threads_;
  } catch (const std::system_error& e) {
    if (threads_ > lost_) return;
    for (const auto& task : queue_)
      if (task.is_heard) finish(task.id, {Fault{0, 0, e.what(), "pthread_create"}, {}});
    // A connection is closed by the first thread that comes back.
    std::erase_if(queue_, [](const Task& task) { return task.is_heard; });
  }
}

void Client::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    more_.wait(lock, [this] { return is_closed_ || !queue_.empty(); });
    --idle_;
    if (is_closed_) break;
    const Task task = std::move(queue_.front());
    queue_.pop_front();
    running_.emplace(task.id, !task.is_heard);
    if (!task.is_heard) {
      ++lost_;
      replace_lost();
    }
    lock.unlock();
    Reply reply = connections_->perform(task.request);
    lock.lock();
    const bool is_unheard = running_.at(task.id);
    running_.erase(task.id);
    if (!is_unheard) {
      finish(task.id, std::move(reply));
      continue;
    }
    --lost_;
    // A connection that nobody waits for any more is closed again.
    if (task.request.op == Op::kOpen && !reply.fault && !is_closed_)
      queue_close(static_cast<unsigned>(std::stoul(reply.rows[0][0])));
    if (threads_ > most_ + lost_ && queue_.empty()) break;
  }
  // Here and not in the destructor: that may run on libvirt's own loop thread, which must not wait for it.
  std::unique_ptr<Connections> last;
  if (--threads_ == 0 && is_closed_) last = std::move(connections_);
  lock.unlock();
}

}  // namespace hostdev::libvirt
