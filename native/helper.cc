#include "helper.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <ctime>

namespace hostdev {

namespace {

// native/writer.cc, enum Call.
constexpr std::array<const char*, 6> kCalls = {"", "openat2", "write", "read", "ftruncate", "close"};
constexpr size_t kHead = 4;
constexpr size_t kFixed = 4 + 4 + 1;
constexpr size_t kLargestAnswer = 65536;
// native/writer.cc, kLargestRequest: a helper that is sent more ends.
constexpr size_t kLargestRequest = 8192;

double now_ms() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
}

void append_u32(std::string& to, uint32_t v) {
  v = htole32(v);
  to.append(reinterpret_cast<const char*>(&v), sizeof v);
}

uint32_t u32_at(const std::string& from, size_t at) {
  uint32_t v = 0;
  memcpy(&v, from.data() + at, sizeof v);
  return le32toh(v);
}

std::string frame(uint32_t id, char operation, const std::string& path, const std::string& value) {
  std::string out;
  append_u32(out, static_cast<uint32_t>(4 + 1 + 2 + path.size() + value.size()));
  append_u32(out, id);
  out.push_back(operation);
  out.push_back(static_cast<char>(path.size() & 0xffU));
  out.push_back(static_cast<char>(path.size() >> 8U));
  return out + path + value;
}

struct SpawnActions {
  posix_spawn_file_actions_t actions{};
  posix_spawnattr_t attributes{};
  SpawnActions() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    // Before it ignores signals itself: Ctrl-C is the terminal's whole group's.
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
  }
  ~SpawnActions() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnActions(const SpawnActions&) = delete;
  SpawnActions& operator=(const SpawnActions&) = delete;
};

}  // namespace

Failure Helper::start() {
  reap();
  const Fd folder(open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.ok()) return {errno, "open", root_};
  std::array<int, 2> in = {-1, -1};
  std::array<int, 2> back = {-1, -1};
  if (pipe2(in.data(), O_CLOEXEC) != 0) return {errno, "posix_spawn", executable_};
  const Fd in_read(in[0]);
  Fd in_write(in[1]);
  if (pipe2(back.data(), O_CLOEXEC) != 0) return {errno, "posix_spawn", executable_};
  Fd back_read(back[0]);
  const Fd back_write(back[1]);
  // dup2 in the child onto a number that is in use here as something else would lose that: what goes to 0..3
  // must come from above.
  const Fd in_high(fcntl(in_read.get(), F_DUPFD_CLOEXEC, 10));
  const Fd back_high(fcntl(back_write.get(), F_DUPFD_CLOEXEC, 10));
  const Fd folder_high(fcntl(folder.get(), F_DUPFD_CLOEXEC, 10));
  // Otherwise it would have our stdin and stdout.
  if (!in_high.ok() || !back_high.ok() || !folder_high.ok()) return {errno, "posix_spawn", executable_};
  SpawnActions spawn;
  auto* actions = &spawn.actions;
  posix_spawn_file_actions_adddup2(actions, in_high.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(actions, back_high.get(), STDOUT_FILENO);
  posix_spawn_file_actions_addopen(actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(actions, folder_high.get(), 3);
  std::string name = executable_;
  std::string word = "write";
  const std::array<char*, 3> argv = {name.data(), word.data(), nullptr};
  const std::array<char*, 1> env = {nullptr};
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, executable_.c_str(), actions, &spawn.attributes, argv.data(), env.data());
  if (error != 0) return {error, "posix_spawn", executable_};
  pids_.push_back(pid);
  input_ = std::move(in_write);
  output_ = std::move(back_read);
  return {};
}

// Those that have ended; one in D state is asked again next time.
void Helper::reap() {
  pids_.erase(std::remove_if(pids_.begin(), pids_.end(),
                             [](pid_t pid) { return waitpid(pid, nullptr, WNOHANG) != 0; }),
              pids_.end());
}

void Helper::close() {
  input_.reset();
  output_.reset();
  reap();
}

Failure Helper::lost(int error, char operation, const std::string& path) {
  close();
  return {error, operation == 'R' ? "read" : "write", path};
}

Failure Helper::request(char operation, const std::string& path, const std::string& value, double deadline_ms,
                        std::string& answer) {
  const double until = now_ms() + deadline_ms;
  const char* what = operation == 'R' ? "read" : "write";
  // Not begun: no reason to give up a helper that is well, nor to leave open whether it was done.
  if (!(deadline_ms > 0)) return {ETIMEDOUT, what, path};
  const uint32_t id = ++last_id_;
  const std::string question = frame(id, operation, path, value);
  if (question.size() > kHead + kLargestRequest) return {E2BIG, what, path};
  // Two tries: one that was killed while it had nothing to do costs no request.
  for (int tries = 2; tries > 0; --tries) {
    if (!input_.ok()) {
      if (auto failure = start()) return failure;
    }
    // A request is smaller than a pipe's buffer and the one before it was answered: this does not block. node
    // ignores SIGPIPE.
    const ssize_t sent = write(input_.get(), question.data(), question.size());
    if (sent == static_cast<ssize_t>(question.size())) break;
    close();
    if (sent >= 0) break;
  }
  if (!input_.ok()) return {EPIPE, what, path};
  std::string got;
  for (;;) {
    if (got.size() >= kHead) {
      const size_t size = u32_at(got, 0);
      if (size < kFixed || size > kLargestAnswer) return lost(EPIPE, operation, path);
      if (got.size() >= kHead + size) break;
    }
    const double left = until - now_ms();
    if (left <= 0) return lost(ETIMEDOUT, operation, path);
    pollfd ready{output_.get(), POLLIN, 0};
    const int n = poll(&ready, 1, static_cast<int>(std::ceil(std::min(left, 1e9))));
    if (n < 0 && errno != EINTR) return lost(EPIPE, operation, path);
    if (n <= 0) continue;
    std::array<char, 8192> chunk;
    const ssize_t size = read(output_.get(), chunk.data(), chunk.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return lost(EPIPE, operation, path);
    got.append(chunk.data(), static_cast<size_t>(size));
  }
  if (u32_at(got, kHead) != id) return lost(EPIPE, operation, path);
  const auto error = static_cast<int>(u32_at(got, kHead + 4));
  const auto call = static_cast<size_t>(static_cast<unsigned char>(got[kHead + 8]));
  answer = got.substr(kHead + kFixed);
  if (error != 0) return {error, call < kCalls.size() ? kCalls[call] : "", path};
  return {};
}

}  // namespace hostdev
