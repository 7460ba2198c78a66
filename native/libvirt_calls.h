// What is asked of libvirt: one request is one task on one thread, so that an error is that of its own call
// (virGetLastError is per thread). Ownership: a Link has one connection, with its callbacks; whoever is the
// last to have it closes it, which may wait for the daemon, so that only a worker lets one go.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "libvirt_api.h"

namespace hostdev::libvirt {

enum class Op {
  kOpen,
  kClose,
  kVersions,
  kDomains,
  kDomain,
  kDomainXml,
  kNetworks,
  kDefine,
  kUndefine,
  kToNative,
  kAttach,
  kDetach
};

struct Request {
  Op op = Op::kVersions;
  // What `kOpen` gave.
  unsigned connection = 0;
  // A URI, a UUID or an XML; of kAttach and kDetach a UUID, a line end and a device's XML.
  std::string text;
  // libvirt's own flags; of kOpen 1 is read-only and 2 is with events.
  unsigned flags = 0;
};

struct Reply {
  std::optional<Fault> fault;
  std::vector<std::vector<std::string>> rows;
};

// "lifecycle", "added", "removed", "removal-failed" or "closed"; `number` is the event or reason, `detail`
// lifecycle's own; `alias` is the device's.
struct Event {
  std::string kind;
  unsigned connection = 0;
  std::string uuid;
  std::string name;
  int number = 0;
  int detail = 0;
  std::string alias;
};

// Takes an event on libvirt's loop thread: never waits, never calls libvirt.
using Listener = std::function<void(Event)>;

class Link;

// The connections of one client, by number.
class Connections {
 public:
  explicit Connections(Listener listener) : listener_(std::move(listener)) {}

  Reply perform(const Request& request);

 private:
  Reply open(const Api& api, const Request& request);
  std::shared_ptr<Link> link(unsigned connection);

  const Listener listener_;
  std::mutex mutex_;
  std::map<unsigned, std::shared_ptr<Link>> links_;
  unsigned last_ = 0;
};

}  // namespace hostdev::libvirt
