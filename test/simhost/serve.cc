#include "serve.h"

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 14)
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <thread>

namespace simhost {

namespace {

// An open file: what an attribute said when it was read from its start, as kernfs keeps it.
struct Handle {
  Node* node = nullptr;
  int pid = 0;
  int flags = 0;
  std::string text;
};

Kernel* kernel_of(fuse_req_t req) {
  return static_cast<Kernel*>(fuse_req_userdata(req));
}

int pid_of(fuse_req_t req) {
  return fuse_req_ctx(req)->pid;
}

Handle* handle_of(const fuse_file_info* fi) {
  return reinterpret_cast<Handle*>(fi->fh);
}

struct stat status_of(const Node& node) {
  struct stat s {};
  s.st_ino = node.ino;
  s.st_mode = node.mode;
  s.st_nlink = node.kind == Kind::kFolder ? 2 : 1;
  // An attribute of sysfs says a page whatever is in it.
  s.st_size = node.kind == Kind::kAttribute ? 4096 : static_cast<off_t>(node.text.size());
  s.st_blksize = 4096;
  s.st_mtim = s.st_ctim = s.st_atim = node.changed;
  return s;
}

fuse_entry_param entry_of(const Node& node) {
  fuse_entry_param e{};
  e.ino = node.ino;
  e.generation = 1;
  // Nothing is remembered by the client's kernel: this one's mind may change at any time.
  e.attr = status_of(node);
  return e;
}

// Looks a child up: 0 or an errno.
int child_of(Kernel* k, fuse_ino_t parent, const char* name, Node*& out) {
  const Node* folder = k->tree.by_ino(parent);
  if (folder == nullptr || folder->dead) return ENOENT;
  const auto it = folder->children.find(name);
  if (it == folder->children.end()) return ENOENT;
  out = it->second;
  return 0;
}

// A change below a folder: only in the plain part, 0 or an errno. kernfs knows no creat and no mkdir by a
// client.
int enter_change(Kernel* k, Lock& lock, fuse_req_t req, fuse_ino_t parent, const char* name,
                 const char* operation, Node*& folder, std::optional<Fault>& after, std::string& path) {
  folder = k->tree.by_ino(parent);
  if (folder == nullptr || folder->dead) return ENOENT;
  path = path_of_node(folder) + "/" + name;
  if (const int error = k->enter(lock, operation, true, path, pid_of(req), after)) return error;
  return folder->dead ? ENOENT : folder->plain ? 0 : EPERM;
}

void sim_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Kernel* k = kernel_of(req);
  Lock lock(k->mutex);
  Node* node = nullptr;
  int error = child_of(k, parent, name, node);
  std::optional<Fault> after;
  if (error == 0) error = k->enter(lock, "lookup", false, path_of_node(node), pid_of(req), after);
  if (error == 0 && node->dead) error = ENOENT;
  if (error == 0) {
    const auto e = entry_of(*node);
    fuse_reply_entry(req, &e);
  } else if (error == ENOENT) {
    fuse_entry_param none{};
    fuse_reply_entry(req, &none);
  } else {
    fuse_reply_err(req, error);
  }
}

void sim_getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info* /*fi*/) {
  Kernel* k = kernel_of(req);
  const Lock lock(k->mutex);
  const Node* node = k->tree.by_ino(ino);
  if (node == nullptr) {
    fuse_reply_err(req, ENOENT);
    return;
  }
  const struct stat s = status_of(*node);
  fuse_reply_attr(req, &s, 0);
}

void sim_setattr(fuse_req_t req, fuse_ino_t ino, struct stat* wanted, int what, fuse_file_info* /*fi*/) {
  Kernel* k = kernel_of(req);
  Lock lock(k->mutex);
  Node* node = k->tree.by_ino(ino);
  // On a real sysfs hostdev's helper answers EPERM itself before it truncates (native/writer.cc).
  int error = node == nullptr ? ENOENT : (what & FUSE_SET_ATTR_SIZE) != 0 && !node->plain ? EPERM : 0;
  std::optional<Fault> after;
  if (error == 0 && node->plain)
    error = k->enter(lock, "change", true, path_of_node(node), pid_of(req), after);
  if (error != 0) {
    fuse_reply_err(req, error);
    return;
  }
  if ((what & FUSE_SET_ATTR_MODE) != 0) node->mode = (node->mode & S_IFMT) | (wanted->st_mode & 07777U);
  if ((what & FUSE_SET_ATTR_SIZE) != 0) node->text.resize(static_cast<size_t>(wanted->st_size));
  if ((what & FUSE_SET_ATTR_MTIME) != 0) node->changed = wanted->st_mtim;
  if (const int late = k->finish(lock, after, path_of_node(node), pid_of(req))) {
    fuse_reply_err(req, late);
    return;
  }
  const struct stat s = status_of(*node);
  fuse_reply_attr(req, &s, 0);
}

void sim_readlink(fuse_req_t req, fuse_ino_t ino) {
  Kernel* k = kernel_of(req);
  Lock lock(k->mutex);
  Node* node = k->tree.by_ino(ino);
  int error = node == nullptr || node->dead ? ENOENT : 0;
  std::optional<Fault> after;
  if (error == 0) error = k->enter(lock, "readlink", false, path_of_node(node), pid_of(req), after);
  if (error == 0 && node->dead) error = ENOENT;
  if (error != 0)
    fuse_reply_err(req, error);
  else
    fuse_reply_readlink(req, node->text.c_str());
}

void sim_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  Kernel* k = kernel_of(req);
  Lock lock(k->mutex);
  Node* folder = nullptr;
  std::optional<Fault> after;
  std::string path;
  int error = enter_change(k, lock, req, parent, name, "change", folder, after, path);
  if (error == 0 && folder->children.count(name) > 0) error = EEXIST;
  Node* node = error == 0 ? k->tree.child(folder, name, Kind::kFolder, mode & 07777U) : nullptr;
  if (error == 0) error = k->finish(lock, after, path, pid_of(req));
  if (error != 0) {
    fuse_reply_err(req, error);
    return;
  }
  const auto e = entry_of(*node);
  fuse_reply_entry(req, &e);
}

void sim_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  Kernel* k = kernel_of(req);
  Lock lock(k->mutex);
  Node* folder = nullptr;
  std::optional<Fault> after;
  std::string path;
  int error = enter_change(k, lock, req, parent, name, "change", folder, after, path);
  if (error == 0 && folder->children.count(name) > 0) error = EEXIST;
  const Node* node = error == 0 ? k->tree.link(folder, name, target) : nullptr;
  if (error == 0) error = k->finish(lock, after, path, pid_of(req));
  if (error != 0) {
    fuse_reply_err(req, error);
    return;
  }
  const auto e = entry_of(*node);
  fuse_reply_entry(req, &e);
}

void remove_entry(fuse_req_t req, fuse_ino_t parent, const char* name, bool folder_wanted) {
  Kernel* k = kernel_of(req);
  Lock lock(k->mutex);
  Node* folder = nullptr;
  Node* node = nullptr;
  std::optional<Fault> after;
  std::string path;
  int error = enter_change(k, lock, req, parent, name, "change", folder, after, path);
  if (error == 0) error = child_of(k, parent, name, node);
  if (error == 0 && folder_wanted && !node->children.empty()) error = ENOTEMPTY;
  if (error == 0) {
    k->tree.remove(node);
    error = k->finish(lock, after, path, pid_of(req));
  }
  fuse_reply_err(req, error);
}

void sim_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  remove_entry(req, parent, name, false);
}

void sim_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
  remove_entry(req, parent, name, true);
}

void sim_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t to, const char* to_name,
                unsigned flags) {
  Kernel* k = kernel_of(req);
  Lock lock(k->mutex);
  Node* from = nullptr;
  Node* node = nullptr;
  Node* folder = k->tree.by_ino(to);
  std::optional<Fault> after;
  std::string path;
  int error = enter_change(k, lock, req, parent, name, "change", from, after, path);
  if (error == 0) error = child_of(k, parent, name, node);
  if (error == 0 && (folder == nullptr || folder->dead)) error = ENOENT;
  if (error == 0 && !folder->plain) error = EPERM;
  // RENAME_NOREPLACE is 1; RENAME_EXCHANGE nobody asks for.
  if (error == 0 && flags > 1) error = EINVAL;
  if (error == 0 && flags == 1 && folder->children.count(to_name) > 0) error = EEXIST;
  if (error == 0) {
    k->tree.move(node, folder, to_name);
    error = k->finish(lock, after, path, pid_of(req));
  }
  fuse_reply_err(req, error);
}

// kernfs_fop_open: what the mode forbids is EACCES even to root.
int may_open(const Node& node, int flags) {
  if (node.plain) return 0;
  const int access = flags & O_ACCMODE;
  if (access != O_WRONLY && (node.mode & 0444U) == 0) return EACCES;
  if (access != O_RDONLY && (node.mode & 0222U) == 0) return EACCES;
  return 0;
}

std::string command_of(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/comm");
  std::string name;
  std::getline(file, name);
  return name;
}

void sim_open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) {
  Kernel* k = kernel_of(req);
  const int pid = pid_of(req);
  const std::string command = command_of(pid);
  Lock lock(k->mutex);
  Node* node = k->tree.by_ino(ino);
  int error = node == nullptr ? ENOENT : node->dead && !node->plain ? ENODEV : 0;
  std::optional<Fault> after;
  if (error == 0) error = k->enter(lock, "open", false, path_of_node(node), pid, after);
  if (error == 0 && node->dead && !node->plain) error = ENODEV;
  if (error == 0) error = may_open(*node, fi->flags);
  if (error == 0 && node->vfio_group >= 0) error = k->open_group(node->vfio_group, pid, command);
  if (error != 0) {
    fuse_reply_err(req, error);
    return;
  }
  if (node->plain && (fi->flags & O_TRUNC) != 0) node->text.clear();
  auto handle = std::make_unique<Handle>();
  handle->node = node;
  handle->pid = pid;
  handle->flags = fi->flags;
  fuse_open_out out{};
  out.fh = reinterpret_cast<uint64_t>(handle.get());
  out.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
  // Otherwise nobody will ever close it.
  if (fuse_reply_buf(req, reinterpret_cast<const char*>(&out), sizeof out) == 0)
    static_cast<void>(handle.release());
  else if (node->vfio_group >= 0)
    k->close_group(node->vfio_group, pid);
}

void sim_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* fi) {
  Kernel* k = kernel_of(req);
  Lock lock(k->mutex);
  Node* folder = nullptr;
  std::optional<Fault> after;
  std::string path;
  int error = enter_change(k, lock, req, parent, name, "change", folder, after, path);
  if (error == EPERM) error = EACCES;
  Node* node = nullptr;
  if (error == 0 && child_of(k, parent, name, node) == 0 && (fi->flags & O_EXCL) != 0) error = EEXIST;
  if (error == 0 && node == nullptr) node = k->tree.child(folder, name, Kind::kFile, mode & 07777U);
  if (error == 0) error = k->finish(lock, after, path, pid_of(req));
  if (error != 0) {
    fuse_reply_err(req, error);
    return;
  }
  auto handle = std::make_unique<Handle>();
  handle->node = node;
  handle->pid = pid_of(req);
  handle->flags = fi->flags;
  fi->fh = reinterpret_cast<uint64_t>(handle.get());
  fi->direct_io = 1;
  const auto e = entry_of(*node);
  if (fuse_reply_create(req, &e, fi) == 0) static_cast<void>(handle.release());
}

void sim_release(fuse_req_t req, fuse_ino_t /*ino*/, fuse_file_info* fi) {
  Kernel* k = kernel_of(req);
  {
    const Lock lock(k->mutex);
    const std::unique_ptr<Handle> handle(handle_of(fi));
    if (handle->node->vfio_group >= 0) k->close_group(handle->node->vfio_group, handle->pid);
  }
  fuse_reply_err(req, 0);
}

void sim_read(fuse_req_t req, fuse_ino_t /*ino*/, size_t size, off_t offset, fuse_file_info* fi) {
  Kernel* k = kernel_of(req);
  Handle* handle = handle_of(fi);
  const auto at = static_cast<size_t>(offset);
  std::string part;
  {
    Lock lock(k->mutex);
    if (at == 0 || handle->node->kind == Kind::kFile) {
      std::string text;
      if (const int error = k->read(lock, handle->node, pid_of(req), text)) {
        lock.unlock();
        fuse_reply_err(req, error);
        return;
      }
      handle->text = text;
    }
    if (at < handle->text.size()) part = handle->text.substr(at, size);
  }
  fuse_reply_buf(req, part.data(), part.size());
}

// A plain file's bytes. kernfs' are Kernel::write's.
int write_plain(Kernel* k, Lock& lock, Handle* handle, int pid, const std::string& value, size_t at) {
  Node* node = handle->node;
  const std::string path = path_of_node(node);
  std::optional<Fault> after;
  if (const int error = k->enter(lock, "change", true, path, pid, after)) return error;
  if ((handle->flags & O_APPEND) != 0) at = node->text.size();
  if (node->text.size() < at + value.size()) node->text.resize(at + value.size());
  node->text.replace(at, value.size(), value);
  clock_gettime(CLOCK_REALTIME, &node->changed);
  return k->finish(lock, after, path, pid);
}

void sim_write(fuse_req_t req, fuse_ino_t /*ino*/, const char* bytes, size_t size, off_t offset,
               fuse_file_info* fi) {
  Kernel* k = kernel_of(req);
  Handle* handle = handle_of(fi);
  const std::string value(bytes, size);
  const int pid = pid_of(req);
  int error = 0;
  {
    Lock lock(k->mutex);
    error = handle->node->plain ? write_plain(k, lock, handle, pid, value, static_cast<size_t>(offset))
                                : k->write(lock, handle->node, pid, value);
  }
  if (error != 0)
    fuse_reply_err(req, error);
  else
    fuse_reply_write(req, size);
}

void sim_fsync(fuse_req_t req, fuse_ino_t /*ino*/, int /*data*/, fuse_file_info* /*fi*/) {
  fuse_reply_err(req, 0);
}

// The names as they were when the folder was opened.
void sim_opendir(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) {
  Kernel* k = kernel_of(req);
  Lock lock(k->mutex);
  Node* node = k->tree.by_ino(ino);
  int error = node == nullptr || node->dead ? ENOENT : node->kind != Kind::kFolder ? ENOTDIR : 0;
  std::optional<Fault> after;
  if (error == 0) error = k->enter(lock, "readdir", false, path_of_node(node), pid_of(req), after);
  if (error == 0 && node->dead) error = ENOENT;
  if (error != 0) {
    fuse_reply_err(req, error);
    return;
  }
  auto handle = std::make_unique<Handle>();
  handle->node = node;
  const auto add = [&](const std::string& name, const Node& of) {
    const struct stat s = status_of(of);
    const size_t need = fuse_add_direntry(req, nullptr, 0, name.c_str(), nullptr, 0);
    const size_t used = handle->text.size();
    handle->text.resize(used + need);
    fuse_add_direntry(req, handle->text.data() + used, need, name.c_str(), &s,
                      static_cast<off_t>(used + need));
  };
  add(".", *node);
  add("..", *node->parent);
  for (const auto& [name, child] : node->children) add(name, *child);
  fi->fh = reinterpret_cast<uint64_t>(handle.get());
  if (fuse_reply_open(req, fi) == 0) static_cast<void>(handle.release());
}

void sim_readdir(fuse_req_t req, fuse_ino_t /*ino*/, size_t size, off_t offset, fuse_file_info* fi) {
  const std::string& text = handle_of(fi)->text;
  const auto at = static_cast<size_t>(offset);
  if (at >= text.size()) {
    fuse_reply_buf(req, nullptr, 0);
    return;
  }
  // Whole entries only: their lengths are in them.
  size_t end = at;
  while (end < text.size()) {
    const auto* entry = reinterpret_cast<const fuse_dirent*>(text.data() + end);
    const size_t length = FUSE_DIRENT_SIZE(entry);
    if (end + length - at > size) break;
    end += length;
  }
  fuse_reply_buf(req, text.data() + at, end - at);
}

void sim_releasedir(fuse_req_t req, fuse_ino_t /*ino*/, fuse_file_info* fi) {
  delete handle_of(fi);
  fuse_reply_err(req, 0);
}

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops o{};
  o.lookup = sim_lookup;
  o.getattr = sim_getattr;
  o.setattr = sim_setattr;
  o.readlink = sim_readlink;
  o.mkdir = sim_mkdir;
  o.symlink = sim_symlink;
  o.unlink = sim_unlink;
  o.rmdir = sim_rmdir;
  o.rename = sim_rename;
  o.open = sim_open;
  o.create = sim_create;
  o.release = sim_release;
  o.read = sim_read;
  o.write = sim_write;
  o.fsync = sim_fsync;
  o.opendir = sim_opendir;
  o.readdir = sim_readdir;
  o.releasedir = sim_releasedir;
  return o;
}

}  // namespace

namespace {

// The end, whoever asks for it: requests that hang are answered by the client's kernel (ENOTCONN) when this
// process is gone.
[[noreturn]] void leave(fuse_session* session) {
  static std::atomic_flag left;
  // Whoever comes second has nothing to do but wait for the end.
  while (left.test_and_set()) sleep(1);
  // What other threads still answer has nowhere to go, and nobody needs to hear of it.
  fuse_set_log_func([](fuse_log_level, const char*, va_list) {});
  fuse_session_unmount(session);
  _exit(0);
}

// A signal, or the end of stdin: whoever started us is gone.
void watch_for_end(fuse_session* session) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  // Inherited by all threads that come.
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([session, signals] {
    int signal = 0;
    sigwait(&signals, &signal);
    leave(session);
  }).detach();
  std::thread([session] {
    std::array<char, 64> bytes;
    while (read(STDIN_FILENO, bytes.data(), bytes.size()) > 0) continue;
    leave(session);
  }).detach();
}

}  // namespace

int serve(Kernel& kernel, const std::string& mountpoint) {
  std::string name = "simhost";
  std::string option = "-o";
  std::string value = "fsname=simhost,subtype=simhost";
  std::array<char*, 3> words = {name.data(), option.data(), value.data()};
  fuse_args args = FUSE_ARGS_INIT(static_cast<int>(words.size()), words.data());
  const auto ops = operations();
  fuse_session* session = fuse_session_new(&args, &ops, sizeof ops, &kernel);
  if (session == nullptr || fuse_session_mount(session, mountpoint.c_str()) != 0) return 1;
  watch_for_end(session);
  puts("ready");
  fflush(stdout);
  fuse_loop_config* loop = fuse_loop_cfg_create();
  // A hang costs a thread.
  fuse_loop_cfg_set_max_threads(loop, 1000);
  fuse_loop_cfg_set_idle_threads(loop, 16);
  fuse_session_loop_mt(session, loop);
  // Threads of the model may still run: the process is the only thing that has to end.
  leave(session);
}

}  // namespace simhost
