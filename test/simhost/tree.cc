#include "tree.h"

#include <vector>

namespace simhost {

namespace {

std::vector<std::string> parts_of(const std::string& path) {
  std::vector<std::string> parts;
  size_t at = 0;
  while (at <= path.size()) {
    const size_t end = std::min(path.find('/', at), path.size());
    if (end > at) parts.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

timespec now() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return t;
}

}  // namespace

Tree::Tree() {
  Node& root = nodes_.emplace_back();
  root.ino = 1;
  root.parent = &root;
  root.mode = S_IFDIR | 0755;
  root.plain = true;
  root.changed = now();
}

Node* Tree::by_ino(uint64_t ino) {
  if (ino < 1 || ino > nodes_.size()) return nullptr;
  return &nodes_[ino - 1];
}

Node* Tree::find(const std::string& path) {
  Node* node = root();
  for (const auto& part : parts_of(path)) {
    const auto it = node->children.find(part);
    if (it == node->children.end()) return nullptr;
    node = it->second;
  }
  return node;
}

Node* Tree::child(Node* folder, const std::string& name, Kind kind, mode_t mode) {
  Node& node = nodes_.emplace_back();
  node.ino = nodes_.size();
  node.parent = folder;
  node.name = name;
  node.kind = kind;
  node.device = folder->device;
  const mode_t type = kind == Kind::kFolder ? S_IFDIR : kind == Kind::kLink ? S_IFLNK : S_IFREG;
  node.mode = type | mode;
  // The kernel's part begins at these two folders; below them nothing is plain.
  node.plain = folder->plain && !(folder == root() && (name == "sys" || name == ".sim"));
  node.changed = now();
  folder->children[name] = &node;
  folder->changed = node.changed;
  return &node;
}

Node* Tree::folder(const std::string& path) {
  Node* node = root();
  for (const auto& part : parts_of(path)) {
    const auto it = node->children.find(part);
    node = it == node->children.end() ? child(node, part, Kind::kFolder, 0755) : it->second;
  }
  return node;
}

Node* Tree::attribute(Node* folder, const std::string& name, mode_t mode) {
  return child(folder, name, Kind::kAttribute, mode);
}

Node* Tree::link(Node* folder, const std::string& name, const std::string& target) {
  Node* node = child(folder, name, Kind::kLink, 0777);
  node->text = target;
  return node;
}

Node* Tree::link_to(Node* folder, const std::string& name, const Node* target) {
  std::vector<std::string> from = parts_of(path_of(folder));
  const std::vector<std::string> to = parts_of(path_of(target));
  size_t common = 0;
  while (common < from.size() && common < to.size() && from[common] == to[common]) ++common;
  std::string text;
  for (size_t i = common; i < from.size(); ++i) text += "../";
  for (size_t i = common; i < to.size(); ++i) text += (i > common ? "/" : "") + to[i];
  return link(folder, name, text);
}

void Tree::remove(Node* node) {
  if (node == nullptr || node->dead) return;
  node->dead = true;
  while (!node->children.empty()) remove(node->children.begin()->second);
  node->parent->children.erase(node->name);
  node->parent->changed = now();
}

void Tree::move(Node* node, Node* folder, const std::string& name) {
  const auto there = folder->children.find(name);
  if (there != folder->children.end()) {
    if (there->second == node) return;
    remove(there->second);
  }
  node->parent->children.erase(node->name);
  node->parent = folder;
  node->name = name;
  folder->children[name] = node;
  node->changed = folder->changed = now();
}

std::string path_of(const Node* node) {
  std::string path;
  for (; node->parent != node; node = node->parent) path = node->name + (path.empty() ? "" : "/") + path;
  return path;
}

}  // namespace simhost
