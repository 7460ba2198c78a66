// Plays JavaScript to the addon's client of libvirt, from several threads: opens, calls, gives up what is
// late, closes at any moment, and drops clients in the middle of it all; until stdin ends. Arguments are the
// URIs. Prints how many calls were made, came back, failed and were abandoned, and how many events were
// heard.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <random>
#include <set>
#include <thread>

#include "libvirt_client.h"

namespace {

using namespace hostdev::libvirt;
using Clock = std::chrono::steady_clock;

constexpr int kPlayers = 4;
constexpr unsigned kThreads = 4;
constexpr size_t kMostOut = 32;
constexpr auto kLongest = std::chrono::milliseconds(4000);

struct Counts {
  std::atomic<uint64_t> asked, answered, failed, abandoned, events, clients;
};

// What the event loop of JavaScript is to the addon: woken from any thread.
class Bell {
 public:
  void ring() {
    const std::scoped_lock lock(mutex_);
    rang_ = true;
    heard_.notify_one();
  }
  void wait(std::chrono::milliseconds most) {
    std::unique_lock lock(mutex_);
    heard_.wait_for(lock, most, [this] { return rang_; });
    rang_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable heard_;
  bool rang_ = false;
};

class Player {
 public:
  Player(const std::vector<std::string>& uris, Counts& counts, unsigned seed)
      : uris_(uris), counts_(counts), chance_(seed) {}

  void play(const std::atomic<bool>& is_over) {
    while (!is_over) {
      // The bell outlives the client's threads, which hold it.
      const auto bell = std::make_shared<Bell>();
      client_ = Client::create(kThreads, [bell] { bell->ring(); });
      ++counts_.clients;
      for (int turns = 200 + below(2000); turns > 0 && !is_over; --turns) {
        while (out_.size() < kMostOut) ask();
        bell->wait(std::chrono::milliseconds(20));
        take();
        abandon_late();
        if (!open_.empty() && below(50) == 0) release();
      }
      client_->close();
      client_.reset();
      out_.clear();
      open_.clear();
    }
  }

 private:
  struct Out {
    Clock::time_point until;
    Op op;
  };

  int below(int n) { return std::uniform_int_distribution<int>(0, n - 1)(chance_); }

  void ask() {
    Request request;
    if (open_.size() < 4 && below(4) == 0) {
      request.op = Op::kOpen;
      request.text = uris_[static_cast<size_t>(below(static_cast<int>(uris_.size())))];
      request.flags = static_cast<unsigned>(below(4));
    } else {
      constexpr std::array<Op, 7> kOps = {Op::kVersions, Op::kDomains, Op::kDomain,  Op::kDomainXml,
                                          Op::kNetworks, Op::kDefine,  Op::kUndefine};
      request.op = kOps[static_cast<size_t>(below(kOps.size()))];
      // One that was closed or never was is asked for too.
      request.connection = open_.empty() ? 7777 : *open_.begin();
      request.text = uuid();
      if (request.op == Op::kDefine)
        request.text = below(4) == 0 ? "<domain"
                                     : "<domain type='" + std::string(below(2) == 0 ? "qemu" : "test") +
                                           "'><name>" + request.text + "</name><uuid>" + request.text +
                                           "</uuid><memory>8192</memory><os><type>hvm</type></os></domain>";
    }
    const auto op = request.op;
    const auto until = Clock::now() + std::chrono::milliseconds(below(8) == 0 ? below(4) : kLongest.count());
    out_.emplace(client_->ask(std::move(request)), Out{until, op});
    ++counts_.asked;
  }

  std::string uuid() { return "624392bd-9784-4e20-8b29-00000000010" + std::to_string(below(10)); }

  void take() {
    auto taken = client_->take();
    counts_.events += taken.events.size();
    for (const auto& done : taken.done) {
      const auto found = out_.find(done.id);
      if (found == out_.end()) continue;
      ++counts_.answered;
      if (done.reply.fault) ++counts_.failed;
      if (found->second.op == Op::kOpen && !done.reply.fault)
        open_.insert(static_cast<unsigned>(std::stoul(done.reply.rows[0][0])));
      out_.erase(found);
    }
    for (const auto& event : taken.events)
      if (event.kind == "closed") release(event.connection);
  }

  void abandon_late() {
    const auto now = Clock::now();
    std::erase_if(out_, [&](const auto& entry) {
      if (entry.second.until > now || client_->abandon(entry.first) == Client::State::kDone) return false;
      ++counts_.abandoned;
      return true;
    });
  }

  void release() { release(*open_.begin()); }
  void release(unsigned connection) {
    client_->release(connection);
    open_.erase(connection);
  }

  const std::vector<std::string>& uris_;
  Counts& counts_;
  std::mt19937 chance_;
  std::shared_ptr<Client> client_;
  std::map<uint64_t, Out> out_;
  std::set<unsigned> open_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> uris(argv + 1, argv + argc);
  if (uris.empty()) return 2;
  // As node does.
  if (std::signal(SIGPIPE, SIG_IGN) == SIG_ERR) return 1;
  // TSan of GCC 12 takes a thread that starts while a library is loaded for one with a stack without end.
  Fault fault;
  if (load(fault) == nullptr) return 1;
  Counts counts{};
  std::atomic<bool> is_over = false;
  std::vector<std::thread> threads;
  threads.reserve(kPlayers);
  for (unsigned i = 0; i < kPlayers; ++i)
    threads.emplace_back([&, i] { Player(uris, counts, i).play(is_over); });
  char byte = 0;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  is_over = true;
  for (auto& thread : threads) thread.join();
  // Their threads end by themselves.
  std::this_thread::sleep_for(kLongest);
  std::printf("%lu clients, %lu calls: %lu answered (%lu failed), %lu abandoned; %lu events\n",
              counts.clients.load(), counts.asked.load(), counts.answered.load(), counts.failed.load(),
              counts.abandoned.load(), counts.events.load());
  return 0;
}
