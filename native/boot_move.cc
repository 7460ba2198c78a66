#include "boot_move.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <set>

#include "boot_sysfs.h"

namespace hostdev {

namespace {

constexpr auto kProbe = "sys/bus/pci/drivers_probe";

std::string text_of(const Failure& failure) {
  return failure.path + ": " + failure.syscall + ": " + strerrordesc_np(failure.error);
}

// The initramfs's own modprobe, with its blacklist; what comes of it shows in the drivers that are there
// then.
void load_module(const std::string& module) {
  const pid_t child = fork();
  if (child == 0) {
    constexpr std::array<const char*, 4> kPaths = {"/sbin/modprobe", "/usr/sbin/modprobe",
                                                   "/usr/bin/modprobe", "/bin/modprobe"};
    for (const char* path : kPaths)
      execl(path, "modprobe", "-q", "-b", module.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  if (child > 0) (void)waitpid(child, nullptr, 0);
}

std::string driver_of(const Root& root, const BootDevice& d) {
  return link_name(root, device_file(d.address, "driver"));
}

Failure set_override(const Root& root, const BootDevice& d, const std::string& driver) {
  return write_attribute(root, device_file(d.address, "driver_override"), driver + "\n");
}

// As it was: off what it got, its override back, its driver asked for again.
void put_back(const Root& root, BootDevice& d) {
  const std::string now = driver_of(root, d);
  if (!now.empty() && now != d.driver)
    (void)write_attribute(root, device_file(d.address, "driver/unbind"), d.address);
  (void)set_override(root, d, d.before);
  if (!d.driver.empty() && driver_of(root, d).empty()) (void)write_attribute(root, kProbe, d.address);
  d.done = false;
}

// Off a built-in driver, and onto the wished one. Empty, or why it is not there.
std::string move_one(const Root& root, BootDevice& d) {
  const std::string& wanted = d.wished->driver;
  // A module that was loaded since the override stands has taken it already.
  const std::string now = driver_of(root, d);
  if (!now.empty() && now != wanted) {
    if (auto failure = write_attribute(root, device_file(d.address, "driver/unbind"), d.address))
      return text_of(failure);
    if (!driver_of(root, d).empty()) return "it is still on " + now;
  }
  if (wanted == "none") return "";
  if (now != wanted) {
    if (auto failure = write_attribute(root, kProbe, d.address)) return text_of(failure);
  }
  // drivers_probe reports success when nothing was bound.
  const std::string after = driver_of(root, d);
  if (after == wanted) return "";
  if (after.empty() && !exists(root, "sys/bus/pci/drivers/" + wanted))
    return wanted + " is not there: no such driver";
  return after.empty() ? wanted + " did not take it" : "it is on " + after + ", not on " + wanted;
}

bool goes(const BootDevice& d) {
  return d.reason.empty() && !d.done;
}

}  // namespace

void move_devices(const Root& root, std::vector<BootDevice>& devices) {
  std::map<size_t, std::vector<BootDevice*>> groups;
  std::set<std::string> modules;
  for (auto& d : devices) {
    if (!goes(d)) continue;
    groups[d.wished->group].push_back(&d);
    if (d.wished->module != "-" && !exists(root, "sys/bus/pci/drivers/" + d.wished->driver))
      modules.insert(d.wished->module);
  }
  const auto fail = [&](std::vector<BootDevice*>& group, BootDevice& culprit, const std::string& why) {
    for (BootDevice* d : group) {
      put_back(root, *d);
      d->held_back = d != &culprit;
      d->reason = d == &culprit ? why : "another function of its group failed";
    }
    group.clear();
  };
  // Before any module is loaded: a variant driver brings its host driver along.
  for (auto& [_, group] : groups) {
    for (BootDevice* d : group) {
      const auto failure = set_override(root, *d, d->wished->driver);
      if (!failure) continue;
      fail(group, *d, text_of(failure));
      break;
    }
  }
  if (root.is_real) std::ranges::for_each(modules, load_module);
  for (auto& [_, group] : groups) {
    for (BootDevice* d : group) {
      const std::string why = move_one(root, *d);
      d->done = why.empty();
      if (why.empty()) continue;
      fail(group, *d, why);
      break;
    }
  }
}

}  // namespace hostdev
