#include "helper.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <vector>

#include "frame.h"

namespace hostdev {

namespace {

// The names of enum Call.
constexpr std::array<const char*, 8> kCalls = {"",          "openat2", "write",       "read",
                                               "ftruncate", "close",   "RTM_GETLINK", "RTM_SETLINK"};

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

// Every process that was started and not reaped yet, of all Helpers: a thousand transactions once left four
// thousand zombies, and then no more could be started.
std::vector<pid_t>& started() {
  static std::vector<pid_t> pids;
  return pids;
}

// Those that have ended; one in D state is asked again next time.
void reap() {
  std::erase_if(started(), [](pid_t pid) { return waitpid(pid, nullptr, WNOHANG) != 0; });
}

}  // namespace

Failure Helper::start() {
  reap();
  if (is_cut(root_)) return {EINVAL, "open", root_};
  if (is_cut(executable_)) return {EINVAL, "posix_spawn", executable_};
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
  started().push_back(pid);
  pid_ = pid;
  input_ = std::move(in_write);
  output_ = std::move(back_read);
  return {};
}

void Helper::close() {
  input_.reset();
  output_.reset();
  reap();
}

pid_t Helper::abandon() {
  close();
  return pid_;
}

Failure Helper::lost() {
  close();
  return {EPIPE, operation_ == 'R' ? "read" : "write", path_};
}

Failure Helper::send(char operation, const std::string& path, const std::string& value) {
  operation_ = operation;
  path_ = path;
  got_.clear();
  const std::string question = encode(Request{++last_id_, operation, path, value});
  if (question.empty()) return {E2BIG, operation == 'R' ? "read" : "write", path};
  // Two tries: one that was killed while it had nothing to do costs no request.
  for (int tries = 2; tries > 0; --tries) {
    if (!input_.ok()) {
      if (auto failure = start()) return failure;
    }
    // A request is smaller than a pipe's buffer and the one before it was answered: this does not block. node
    // ignores SIGPIPE.
    const ssize_t sent = write(input_.get(), question.data(), question.size());
    if (sent == static_cast<ssize_t>(question.size())) return {};
    close();
    if (sent >= 0) break;
  }
  return lost();
}

Helper::Taken Helper::take(std::string& answer, Failure& failure) {
  const auto fail = [&](Failure f) {
    failure = std::move(f);
    return Taken::kFailure;
  };
  std::array<char, 8192> chunk;
  const ssize_t n = read(output_.get(), chunk.data(), chunk.size());
  if (n < 0 && errno == EINTR) return Taken::kPart;
  if (n <= 0) return fail(lost());
  got_.append(chunk.data(), static_cast<size_t>(n));
  if (got_.size() < kFrameHead) return Taken::kPart;
  const size_t size = frame_size(got_);
  if (size > kLargestAnswer) return fail(lost());
  if (got_.size() < kFrameHead + size) return Taken::kPart;
  const auto got = decode_answer(std::string_view(got_).substr(kFrameHead));
  if (!got || got->id != last_id_) return fail(lost());
  if (got->error != 0) return fail({got->error, kCalls[static_cast<size_t>(got->call)], path_});
  answer = got->bytes;
  return Taken::kAnswer;
}

}  // namespace hostdev
