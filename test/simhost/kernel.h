// The model of the kernel's driver core and PCI core: devices, drivers, IOMMU groups, and what sysfs answers
// for them, errno by errno, as drivers/base/{bus,dd,driver}.c,
// drivers/pci/{pci-driver,pci-sysfs,iov,search}.c, drivers/iommu/iommu.c and drivers/vfio do. One mutex
// guards everything. Whatever takes time (a delay, a hang, a device's lock) waits on the one condition
// variable, and so never with the mutex held.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "faults.h"
#include "tree.h"
#include "words.h"

namespace simhost {

struct Driver {
  std::string name;
  std::string module;
  // "8086:10ca"
  std::set<std::string> ids;
  std::set<std::string> dynamic_ids;
  // A VFIO driver: matches by override only, shows vfio-dev, leaves DMA ownership to user space.
  bool vfio = false;
  // pci-stub, pcieport: bound, and yet no part in DMA ownership.
  bool managed_dma = false;
  bool sriov = false;
  // NVIDIA's vGPU driver: VFIO has its VFs from it, each with a vGPU type.
  bool vgpu = false;
  // While the PF's interface is down its number of VFs cannot be changed: an errno, or "silent".
  std::string wants_up;
  int probe_errno = 0;
  int probe_ms = 0;
  // So many probes answer EPROBE_DEFER.
  int defer = 0;
  int remove_ms = 0;
  // remove() waits for `release`: the driver link is gone by then, the device's lock is held.
  bool remove_hang = false;
  int sriov_errno = 0;
  // Between one VF and the next; with vf_late the write returns before the first.
  int vf_ms = 0;
  bool vf_late = false;
  Node* folder = nullptr;
};

struct Group {
  int id = 0;
  std::set<Device*> members;
  Node* folder = nullptr;
  std::string type = "DMA-FQ";
  // Open files on dev/vfio/<id>.
  int opened = 0;
};

struct Device {
  std::string address;
  // As the control file described it: what comes back after a rescan.
  Command description;
  std::string vendor, product, class_code, sub_vendor, sub_product;
  // Of a bridge; "" on a root bus.
  std::string parent;
  Device* physfn = nullptr;
  // By number: virtfn<n>. Those that are there, while sriov_numvfs says num_vfs.
  std::map<int, Device*> vfs;
  int num_vfs = 0;
  int total_vfs = 0;
  bool autoprobe_vfs = true;
  std::optional<std::string> override;
  std::string reset_methods;
  // Of a VF on NVIDIA's vGPU driver; 0 for none.
  int vgpu_type = 0;
  // Of its network interface.
  bool up = false;
  Driver* driver = nullptr;
  Group* group = nullptr;
  Node* folder = nullptr;
  bool locked = false;
  bool gone = false;

  [[nodiscard]] std::string ids() const { return vendor + ":" + product; }
  [[nodiscard]] bool is_bridge() const { return class_code.rfind("06", 0) == 0; }
};

// Who has a file of the device open, as proc shows it.
struct Holder {
  int pid = 0;
  std::string command;
  std::string path;
};

class Kernel {
 public:
  Kernel();

  std::mutex mutex;
  Tree tree;

  // One line of the control file: 0 or an errno, and in `complaint` what was wrong.
  int control(Lock& lock, const std::string& line, std::string& complaint);

  // What a request of a client goes through. `pid` is who asks.
  int read(Lock& lock, Node* node, int pid, std::string& out);
  int write(Lock& lock, Node* node, int pid, const std::string& value);
  // For every other operation: its errno by a rule, 0 to go on. `changes` is for those that change plain
  // files. `after` is set when the rule wants the operation done before it fails: the caller then ends with
  // finish().
  int enter(Lock& lock, const char* operation, bool changes, const std::string& path, int pid,
            std::optional<Fault>& after);
  int finish(Lock& lock, const std::optional<Fault>& after, const std::string& path, int pid);
  // A file of dev/vfio was opened (0 or an errno) or closed.
  int open_group(int id, int pid, const std::string& command);
  void close_group(int id, int pid);
  // Lets all waits end, for good.
  void stop();

 private:
  // control.cc
  int add_driver(const Command& c);
  int add_device(Lock& lock, const Command& c, std::string& complaint);
  int plain_entry(const Command& c);
  void control_files();

  // kernel.cc
  void sleep_ms(Lock& lock, int ms);
  void hang(Lock& lock, const std::string& what);
  // False when the device went while its lock was waited for.
  bool lock_device(Lock& lock, Device* d);
  void unlock_device(Device* d);
  int carry_out(Lock& lock, const Fault& f, const std::string& path, int pid);
  void hold(const Holder& h);
  void drop(const Holder& h);

  // devices.cc
  Device* live(const std::string& address);
  Device* create(const Command& description, Device* physfn);
  void appear(Device* d);
  void remove_device(Lock& lock, Device* d, bool surprise);
  void rescan(Lock& lock);
  void join_group(Device* d);
  Group* group_of_topology(Device* d);
  Group* new_group(int id);

  // attributes.cc
  void make_attributes(Device* d);
  void make_reset(Device* d);
  std::string config_of(const Device& d);
  int store_override(Device* d, const std::string& value);
  int store_reset(Lock& lock, Device* d, const std::string& value);

  // binding.cc
  [[nodiscard]] bool matches(const Driver& r, const Device& d) const;
  int probe(Lock& lock, Device* d, Driver* r);
  int probe_result(const Device& d, Driver* r);
  void attach_any(Lock& lock, Device* d);
  void release_driver(Lock& lock, Device* d);
  void retry_deferred();
  void show_driver(Device* d, Driver* r);
  void hide_driver(Device* d);
  void show_vfio(Device* d);
  void hide_vfio(Device* d);

  // bus.cc
  void make_bus();
  void make_driver_files(Driver* r);
  int store_bind(Lock& lock, Driver* r, const std::string& value);
  int store_unbind(Lock& lock, Driver* r, const std::string& value);
  int store_probe(Lock& lock, const std::string& value);
  int store_new_id(Lock& lock, Driver* r, const std::string& value);

  // net.cc
  void show_net(Device* d);
  void hide_net(Device* d);

  // vgpu.cc
  [[nodiscard]] static bool provides_vfio(const Driver& r, const Device& d);
  void show_vgpu(Device* d);
  void hide_vgpu(Device* d);
  int store_vgpu_type(Device* d, const std::string& value);

  // sriov.cc
  void make_sriov(Device* d);
  int store_numvfs(Lock& lock, Device* d, const std::string& value);
  void add_vfs(Lock& lock, Device* d, int count, Driver* r);
  void add_vf(Lock& lock, Device* d, int index);
  void remove_vfs(Lock& lock, Device* d);

  std::condition_variable changed_;
  bool stopping_ = false;
  // How often `release` was said; a hang ends when it is said again.
  uint64_t releases_ = 0;
  std::deque<Device> devices_;
  std::map<std::string, Device*> live_;
  std::deque<Driver> drivers_;
  std::map<int, Group> groups_;
  std::vector<Command> removed_;
  std::set<Device*> deferred_;
  std::vector<Holder> holders_;
  Faults faults_;
  std::string journal_;
  std::vector<std::string> hung_;
  long writes_ = 0;
  // The path of each request that changes anything, sysfs or plain files.
  std::vector<std::string> changes_;
  std::string complaint_;
  bool autoprobe_ = true;
  bool cdev_ = false;
  int next_vfio_ = 0;
};

// The path by which rules and journal know a node: what belongs to a device goes by
// sys/bus/pci/devices/<address>/….
std::string path_of_node(const Node* node);

// Without what sysfs_streq overlooks: one newline at the end.
std::string without_newline(const std::string& value);

// lib/kstrtox.c for an unsigned number: one newline at the end is fine, anything else is not. Negative when
// it is none.
long parse_unsigned(const std::string& value);
// kstrtobool: 1/0, y/n, on/off; negative when it is none.
int parse_bool(const std::string& value);

}  // namespace simhost
