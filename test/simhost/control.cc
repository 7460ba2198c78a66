// .sim: the control file (ctl), the journal of all writes, the paths of all changes, what hangs, and how many
// writes and changes there were. Commands:
//   device ADDR VENDOR:PRODUCT [class= subsystem= parent= group=N|auto numa= driver=NAME|auto override=
//   physfn= totalvfs= vfids= vfgroup=
//          vfoffset= vfstride= vgpu_room= vgpus=ID:SIZE:NAME,… net=NAME
//          reset=METHODS
//          reset_ms= reset_errno= port=root|up|down|bridge|pci|endpoint
//          acs=BITS multifunction=1 attr.NAME=TEXT]
//   driver NAME [module= ids=V:P,V:P vfio=1 managed_dma=1 sriov=1 vgpu=1 wants_up=silent|ERRNO
//          probe_errno= probe_ms= defer= remove_ms= remove_hang= sriov_errno= vf_ms=
//          vf_late=]      a driver that is there gets the options that are given
//   file PATH TEXT | dir PATH | link PATH TARGET        anywhere, below sys too
//   fault OPERATION GLOB [errno= delay=MS hang silent after kill count= skip= do=vanish_ADDR]
//   release | clear | vanish ADDR | hold PID COMMAND PATH | drop PID PATH | set cdev=0|1
#include <cerrno>

#include "kernel.h"

namespace simhost {

int Kernel::control(Lock& lock, const std::string& line, std::string& complaint) {
  const Command c = parse_line(line);
  if (c.words.empty()) return 0;
  const std::string& word = c.words[0];
  const size_t words = c.words.size();
  if (word == "device" && words == 3) return add_device(lock, c, complaint);
  if (word == "driver" && words == 2) return add_driver(c);
  if (word == "file" || word == "dir" || word == "link") return plain_entry(c);
  if (word == "fault") return faults_.add(c);
  if (word == "clear") {
    faults_.clear();
    return 0;
  }
  if (word == "release") {
    ++releases_;
    changed_.notify_all();
    return 0;
  }
  if (word == "vanish" && words == 2) {
    Device* d = live(c.words[1]);
    if (d == nullptr) return ENODEV;
    remove_device(lock, d, true);
    return 0;
  }
  if (word == "hold" && words == 4) {
    hold({atoi(c.words[1].c_str()), c.words[2], c.words[3]});
    return 0;
  }
  if (word == "drop" && words == 3) {
    drop({atoi(c.words[1].c_str()), "", c.words[2]});
    return 0;
  }
  if (word == "set") {
    cdev_ = c.number("cdev", cdev_ ? 1 : 0) != 0;
    return 0;
  }
  complaint = "no such command";
  return EINVAL;
}

int Kernel::add_driver(const Command& c) {
  Driver* r = nullptr;
  for (auto& d : drivers_) {
    if (d.name == c.words[1]) r = &d;
  }
  if (r == nullptr) r = &drivers_.emplace_back();
  r->name = c.words[1];
  r->module = c.text("module", r->module);
  if (c.has("ids")) {
    r->ids.clear();
    for (const auto& id : split(c.text("ids"), ',')) r->ids.insert(id);
  }
  r->vfio = c.number("vfio", r->vfio ? 1 : 0) != 0;
  r->managed_dma = c.number("managed_dma", r->managed_dma ? 1 : 0) != 0;
  r->sriov = c.number("sriov", r->sriov ? 1 : 0) != 0;
  r->wants_up = c.text("wants_up", r->wants_up);
  r->vgpu = c.number("vgpu", r->vgpu ? 1 : 0) != 0;
  if (c.has("probe_errno")) r->probe_errno = errno_of(c.text("probe_errno"));
  if (c.has("sriov_errno")) r->sriov_errno = errno_of(c.text("sriov_errno"));
  r->probe_ms = c.number("probe_ms", r->probe_ms);
  r->defer = c.number("defer", r->defer);
  r->remove_ms = c.number("remove_ms", r->remove_ms);
  r->remove_hang = c.number("remove_hang", r->remove_hang ? 1 : 0) != 0;
  r->vf_ms = c.number("vf_ms", r->vf_ms);
  r->vf_late = c.number("vf_late", r->vf_late ? 1 : 0) != 0;
  if (r->folder != nullptr) return 0;
  r->folder = tree.folder("sys/bus/pci/drivers/" + r->name);
  make_driver_files(r);
  return 0;
}

int Kernel::add_device(Lock& lock, const Command& c, std::string& complaint) {
  if (live(c.words[1]) != nullptr) {
    complaint = "there is one already";
    return EEXIST;
  }
  Device* pf = c.has("physfn") ? live(c.text("physfn")) : nullptr;
  if (c.has("physfn") && pf == nullptr) {
    complaint = "its PF is not there";
    return EINVAL;
  }
  Device* d = create(c, pf);
  appear(d);
  if (pf != nullptr) ++pf->num_vfs;
  if (c.has("override")) store_override(d, c.text("override"));
  const std::string wanted = c.text("driver");
  if (wanted.empty()) return 0;
  if (wanted == "auto") {
    attach_any(lock, d);
    return 0;
  }
  for (auto& r : drivers_) {
    if (r.name != wanted) continue;
    d->driver = &r;
    show_driver(d, &r);
    if (provides_vfio(r, *d)) show_vfio(d);
    return 0;
  }
  complaint = "no such driver";
  return EINVAL;
}

int Kernel::plain_entry(const Command& c) {
  const bool folder = c.words[0] == "dir";
  if (c.words.size() < 2 || c.words.size() > (folder ? 2U : 3U)) return EINVAL;
  std::string path = c.words[1];
  const std::string text = c.words.size() > 2 ? c.words[2] : "";
  if (folder) {
    tree.folder(path);
    return 0;
  }
  const size_t slash = path.rfind('/');
  Node* home = slash == std::string::npos ? tree.root() : tree.folder(path.substr(0, slash));
  const std::string name = path.substr(slash + 1);
  const auto there = home->children.find(name);
  if (there != home->children.end()) tree.remove(there->second);
  if (c.words[0] == "link")
    tree.link(home, name, text);
  else
    tree.child(home, name, Kind::kFile, 0644)->text = text;
  return 0;
}

void Kernel::control_files() {
  Node* folder = tree.folder(".sim");
  Node* ctl = tree.attribute(folder, "ctl", 0600);
  ctl->show = [this](Lock&, std::string& out) {
    out = complaint_;
    return 0;
  };
  ctl->store = [this](Lock& lock, const std::string& value) {
    for (const auto& line : split(value, '\n')) {
      complaint_.clear();
      const int error = control(lock, line, complaint_);
      if (error == 0) continue;
      complaint_ = line + ": " + (complaint_.empty() ? "not understood" : complaint_) + "\n";
      return error;
    }
    return 0;
  };
  tree.attribute(folder, "journal", 0400)->show = [this](Lock&, std::string& out) {
    out = journal_;
    return 0;
  };
  tree.attribute(folder, "hung", 0400)->show = [this](Lock&, std::string& out) {
    for (const auto& what : hung_) out += what + "\n";
    return 0;
  };
  tree.attribute(folder, "changes", 0400)->show = [this](Lock&, std::string& out) {
    for (const auto& path : changes_) out += path + "\n";
    return 0;
  };
  tree.attribute(folder, "count", 0400)->show = [this](Lock&, std::string& out) {
    out = std::to_string(writes_) + " " + std::to_string(changes_.size()) + "\n";
    return 0;
  };
}

}  // namespace simhost
