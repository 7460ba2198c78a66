// A function's network interface, as far as net/core/net-sysfs.c shows it: its host driver makes it, and it
// is up or down by its flags.
#include <cerrno>

#include "kernel.h"

namespace simhost {

void Kernel::show_net(Device* d) {
  const std::string name = d->description.text("net");
  if (name.empty()) return;
  Node* own = tree.child(tree.child(d->folder, "net", Kind::kFolder, 0755), name, Kind::kFolder, 0755);
  const auto attribute = [&](const char* file, mode_t mode, std::function<std::string()> text) {
    Node* node = tree.attribute(own, file, mode);
    node->show = [text = std::move(text)](Lock&, std::string& out) {
      out = text() + "\n";
      return 0;
    };
    return node;
  };
  attribute("ifindex", 0444, [] { return "9"; });
  attribute("address", 0444, [] { return "52:54:00:00:00:51"; });
  // Without a cable.
  attribute("operstate", 0444, [] { return "down"; });
  Node* flags = attribute("flags", 0644, [d] { return d->up ? "0x1003" : "0x1002"; });
  flags->store = [d](Lock&, const std::string& value) {
    const long all = parse_unsigned(value);
    if (all < 0) return EINVAL;
    d->up = (all & 1) != 0;
    return 0;
  };
  tree.link_to(tree.folder("sys/class/net"), name, own);
}

void Kernel::hide_net(Device* d) {
  d->up = false;
  const std::string name = d->description.text("net");
  if (name.empty()) return;
  tree.remove(tree.find("sys/class/net/" + name));
  tree.remove(tree.find(path_of(d->folder) + "/net"));
}

}  // namespace simhost
