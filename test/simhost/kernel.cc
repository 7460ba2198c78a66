#include "kernel.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>

namespace simhost {

std::string without_newline(const std::string& value) {
  return !value.empty() && value.back() == '\n' ? value.substr(0, value.size() - 1) : value;
}

long parse_unsigned(const std::string& value) {
  const std::string text = without_newline(value);
  const bool hex = text.rfind("0x", 0) == 0;
  const std::string digits = hex ? text.substr(2) : text;
  if (digits.empty() || digits.size() > 9) return -1;
  if (digits.find_first_not_of(hex ? "0123456789abcdefABCDEF" : "0123456789") != std::string::npos) return -1;
  return strtol(digits.c_str(), nullptr, hex ? 16 : text[0] == '0' ? 8 : 10);
}

int parse_bool(const std::string& value) {
  if (value.empty()) return -1;
  switch (value[0]) {
    case '1':
    case 'y':
    case 'Y':
      return 1;
    case '0':
    case 'n':
    case 'N':
      return 0;
    case 'o':
    case 'O':
      if (value.size() > 1 && (value[1] == 'n' || value[1] == 'N')) return 1;
      if (value.size() > 1 && (value[1] == 'f' || value[1] == 'F')) return 0;
      return -1;
    default:
      return -1;
  }
}

std::string path_of_node(const Node* node) {
  if (node->device == nullptr) return path_of(node);
  const std::string path = path_of(node);
  const std::string folder = path_of(node->device->folder);
  if (path.rfind(folder, 0) != 0) return path;
  return "sys/bus/pci/devices/" + node->device->address + path.substr(folder.size());
}

namespace {

// Field `Name:` of proc/<pid>/status; 0 when the process is gone.
int parent_of(int pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  std::string word;
  while (status >> word) {
    if (word != "PPid:") continue;
    int parent = 0;
    status >> parent;
    return parent;
  }
  return 0;
}

std::string command_of(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/comm");
  std::string name;
  std::getline(file, name);
  return name;
}

// hostdev's helper works for the command that started it: that one first, or it would see the helper's end.
void kill_client(int pid) {
  if (pid <= 1) return;
  if (command_of(pid).rfind("hostdev-native", 0) == 0) {
    const int parent = parent_of(pid);
    if (parent > 1) kill(parent, SIGKILL);
  }
  kill(pid, SIGKILL);
}

}  // namespace

Kernel::Kernel() {
  make_bus();
  control_files();
}

void Kernel::stop() {
  const Lock lock(mutex);
  stopping_ = true;
  changed_.notify_all();
}

void Kernel::sleep_ms(Lock& lock, int ms) {
  if (ms <= 0) return;
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
  changed_.wait_until(lock, until, [this] { return stopping_; });
}

void Kernel::hang(Lock& lock, const std::string& what) {
  const uint64_t seen = releases_;
  hung_.push_back(what);
  changed_.wait(lock, [this, seen] { return stopping_ || releases_ != seen; });
  hung_.erase(std::find(hung_.begin(), hung_.end(), what));
}

bool Kernel::lock_device(Lock& lock, Device* d) {
  changed_.wait(lock, [this, d] { return stopping_ || !d->locked; });
  if (d->gone) return false;
  d->locked = true;
  return true;
}

void Kernel::unlock_device(Device* d) {
  d->locked = false;
  changed_.notify_all();
}

// All of a rule but `silent`, which is its caller's. The errno that it answers.
int Kernel::carry_out(Lock& lock, const Fault& f, const std::string& path, int pid) {
  sleep_ms(lock, f.delay_ms);
  if (f.hang) hang(lock, path);
  if (!f.vanish.empty()) {
    if (Device* d = live(f.vanish)) remove_device(lock, d, true);
  }
  if (f.kill) kill_client(pid);
  return f.error;
}

int Kernel::enter(Lock& lock, const char* operation, bool changes, const std::string& path, int pid,
                  std::optional<Fault>& after) {
  if (path.rfind(".sim", 0) == 0) return 0;
  if (changes) changes_.push_back(path);
  const auto fault = faults_.match(operation, changes, path);
  if (!fault) return 0;
  if (fault->after) {
    after = fault;
    return 0;
  }
  const int error = carry_out(lock, *fault, path, pid);
  // A killed client's request is not carried out: that is what "before" means.
  return fault->kill && error == 0 ? EINTR : error;
}

int Kernel::finish(Lock& lock, const std::optional<Fault>& after, const std::string& path, int pid) {
  return after ? carry_out(lock, *after, path, pid) : 0;
}

int Kernel::read(Lock& lock, Node* node, int pid, std::string& out) {
  const std::string path = path_of_node(node);
  std::optional<Fault> after;
  if (const int error = enter(lock, "read", false, path, pid, after)) return error;
  // A plain file that was replaced can be read on by whoever has it open.
  if (node->dead && !node->plain) return ENODEV;
  if (node->kind == Kind::kFile) {
    out = node->text;
    return finish(lock, after, path, pid);
  }
  if (!node->show) return EACCES;
  Device* d = node->locks_reads ? node->device : nullptr;
  if (d != nullptr) {
    changed_.wait(lock, [this, d] { return stopping_ || !d->locked; });
    if (node->dead || stopping_) return ENODEV;
  }
  if (const int error = node->show(lock, out)) return error;
  return finish(lock, after, path, pid);
}

int Kernel::write(Lock& lock, Node* node, int pid, const std::string& value) {
  if (node->dead) return ENODEV;
  if (!node->store) return EACCES;
  const std::string path = path_of_node(node);
  const bool watched = path.rfind(".sim", 0) != 0;
  std::optional<Fault> fault;
  if (watched) {
    ++writes_;
    changes_.push_back(path);
    journal_ += path + "=" + without_newline(value) + "\n";
    fault = faults_.match("write", true, path);
  }
  Device* d = node->locks ? node->locks(value) : nullptr;
  if (d != nullptr && !lock_device(lock, d)) return ENODEV;
  int error = 0;
  if (fault && !fault->after) {
    error = carry_out(lock, *fault, path, pid);
    if (fault->kill && error == 0) error = EINTR;
  }
  const bool skipped = error != 0 || (fault && fault->silent);
  if (!skipped) error = node->dead ? ENODEV : node->store(lock, value);
  if (fault && fault->after) {
    const int later = carry_out(lock, *fault, path, pid);
    if (error == 0) error = later;
  }
  if (d != nullptr) unlock_device(d);
  return error;
}

void Kernel::hold(const Holder& h) {
  holders_.push_back(h);
  const std::string at = "proc/" + std::to_string(h.pid);
  Node* process = tree.folder(at);
  if (process->children.count("comm") == 0) {
    tree.child(process, "comm", Kind::kFile, 0444)->text = h.command + "\n";
    tree.child(process, "cmdline", Kind::kFile, 0444)->text = h.command + std::string(1, '\0');
  }
  Node* fds = tree.folder(at + "/fd");
  int number = 3;
  while (fds->children.count(std::to_string(number)) > 0) ++number;
  tree.link(fds, std::to_string(number), h.path);
}

void Kernel::drop(const Holder& h) {
  const auto it = std::find_if(holders_.begin(), holders_.end(),
                               [&](const Holder& o) { return o.pid == h.pid && o.path == h.path; });
  if (it == holders_.end()) return;
  holders_.erase(it);
  const std::string at = "proc/" + std::to_string(h.pid);
  if (Node* fds = tree.find(at + "/fd")) {
    for (const auto& [name, link] : fds->children) {
      if (link->text != h.path) continue;
      tree.remove(link);
      break;
    }
    if (fds->children.empty()) tree.remove(tree.find(at));
  }
  changed_.notify_all();
}

int Kernel::open_group(int id, int pid, const std::string& command) {
  const auto it = groups_.find(id);
  if (it == groups_.end()) return ENOENT;
  Group& group = it->second;
  // drivers/vfio/group.c vfio_group_fops_open: one file at a time.
  if (group.opened > 0) return EBUSY;
  // VFIO_GROUP_SET_CONTAINER, which no FUSE file can be asked for: the open stands for it too. EPERM is
  // "group N is not viable".
  for (const Device* d : group.members) {
    if (d->driver != nullptr && !provides_vfio(*d->driver, *d) && !d->driver->managed_dma) return EPERM;
  }
  ++group.opened;
  hold({pid, command, "/dev/vfio/" + std::to_string(id)});
  return 0;
}

void Kernel::close_group(int id, int pid) {
  groups_[id].opened = 0;
  drop({pid, "", "/dev/vfio/" + std::to_string(id)});
  changed_.notify_all();
}

}  // namespace simhost
