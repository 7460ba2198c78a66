// The file tree that the simulated host shows: folders, links and attributes that only the model makes
// (sysfs), and plain files that a client may make, replace and remove (run, var, proc, ...). Not thread-safe
// by itself: the model's one mutex guards it. A node is never freed, only marked dead: the kernel and open
// files may still know it, and a test does not live long.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <ctime>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>

namespace simhost {

using Lock = std::unique_lock<std::mutex>;

struct Device;

enum class Kind : uint8_t { kFolder, kLink, kFile, kAttribute };

struct Node {
  uint64_t ino = 0;
  Node* parent = nullptr;
  std::string name;
  Kind kind = Kind::kFolder;
  mode_t mode = 0;
  // A client may change it: not a part of what the kernel shows.
  bool plain = false;
  bool dead = false;
  timespec changed{};
  std::map<std::string, Node*> children;
  // A link's target, a plain file's bytes.
  std::string text;
  // An attribute's answers: 0 or an errno. They are called with the model's lock and may wait on it.
  std::function<int(Lock&, std::string&)> show;
  std::function<int(Lock&, const std::string&)> store;
  // The device whose lock a write of this value (or a read, if `locks_reads`) holds all the time; null for
  // none.
  std::function<Device*(const std::string&)> locks;
  bool locks_reads = false;
  // The device that the node belongs to, for the short path.
  Device* device = nullptr;
  // An IOMMU group's node in dev/vfio: opening it is holding the group.
  int vfio_group = -1;
};

class Tree {
 public:
  Tree();

  [[nodiscard]] Node* root() { return &nodes_.front(); }
  // Null for a number that is none.
  Node* by_ino(uint64_t ino);
  // Below the root, links not followed; null when it is not there.
  Node* find(const std::string& path);

  Node* child(Node* folder, const std::string& name, Kind kind, mode_t mode);
  // Makes the folders that lack on the way.
  Node* folder(const std::string& path);
  Node* attribute(Node* folder, const std::string& name, mode_t mode);
  Node* link(Node* folder, const std::string& name, const std::string& target);
  // A link from a folder to another node, relative as the kernel's are.
  Node* link_to(Node* folder, const std::string& name, const Node* target);
  // With all below it; null is nothing.
  void remove(Node* node);
  // From where it is to another folder and name, in place of what is there.
  void move(Node* node, Node* folder, const std::string& name);

 private:
  std::deque<Node> nodes_;
};

// Path from the root, without a leading slash.
std::string path_of(const Node* node);

}  // namespace simhost
