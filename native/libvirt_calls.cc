#include "libvirt_calls.h"

#include <array>
#include <cstdlib>

namespace hostdev::libvirt {

namespace {

// One unanswered ping a second, two of them: a daemon that hangs is given up within 3 s.
constexpr int kKeepAliveSeconds = 1;
constexpr unsigned kKeepAliveCount = 2;
constexpr unsigned kReadOnly = 1;
constexpr unsigned kWithEvents = 2;
// VIR_UUID_STRING_BUFLEN
constexpr size_t kUuidText = 37;
constexpr unsigned kNoId = -1;
// VIR_ERR_NO_DOMAIN
constexpr int kNoDomain = 42;
// VIR_ERR_NO_NETWORK
constexpr int kNoNetwork = 43;

// enum virDomainEventID
constexpr int kLifecycle = 0;
constexpr int kDeviceRemoved = 15;
constexpr int kDeviceAdded = 19;
constexpr int kDeviceRemovalFailed = 22;

std::string text_of(const char* text) {
  return text == nullptr ? "" : text;
}

// What libvirt hands out is malloc's.
using Text = std::unique_ptr<char, decltype(&std::free)>;
Text owned(char* text) {
  return {text, &std::free};
}

struct FreeDomain {
  const Api* api;
  void operator()(Domain* d) const { api->DomainFree(d); }
};
using DomainHandle = std::unique_ptr<Domain, FreeDomain>;

Reply failed(const Api& api, const char* call) {
  return {last_error(api, call), {}};
}

// Who hears of a connection. Each callback has one, which holds itself until libvirt says by free_ear(), in
// its loop thread or ours, that the callback is gone.
struct Ear {
  const Api* api;
  Listener listener;
  unsigned connection;
  std::shared_ptr<Ear> itself;
};

std::shared_ptr<Ear> make_ear(const Api& api, const Listener& listener, unsigned connection) {
  auto ear = std::make_shared<Ear>(Ear{&api, listener, connection, nullptr});
  ear->itself = ear;
  return ear;
}

void free_ear(void* ear) {
  const auto last = std::move(static_cast<Ear*>(ear)->itself);
}

void tell(void* opaque, const char* kind, Domain* domain, int number, int detail, const char* alias) {
  const auto* ear = static_cast<Ear*>(opaque);
  Event event{kind, ear->connection, "", "", number, detail, text_of(alias)};
  if (domain != nullptr) {
    std::array<char, kUuidText> uuid{};
    // Both are in the object: neither asks the daemon.
    if (ear->api->DomainGetUUIDString(domain, uuid.data()) == 0) event.uuid = uuid.data();
    event.name = text_of(ear->api->DomainGetName(domain));
  }
  ear->listener(std::move(event));
}

void on_close(Connect* /*connect*/, int reason, void* ear) {
  tell(ear, "closed", nullptr, reason, 0, nullptr);
}
int on_lifecycle(Connect* /*connect*/, Domain* domain, int event, int detail, void* ear) {
  tell(ear, "lifecycle", domain, event, detail, nullptr);
  return 0;
}
void on_added(Connect* /*connect*/, Domain* domain, const char* alias, void* ear) {
  tell(ear, "added", domain, 0, 0, alias);
}
void on_removed(Connect* /*connect*/, Domain* domain, const char* alias, void* ear) {
  tell(ear, "removed", domain, 0, 0, alias);
}
void on_removal_failed(Connect* /*connect*/, Domain* domain, const char* alias, void* ear) {
  tell(ear, "removal-failed", domain, 0, 0, alias);
}

std::vector<std::string> row_of(const Api& api, Domain* domain) {
  std::array<char, kUuidText> uuid{};
  api.DomainGetUUIDString(domain, uuid.data());
  return {uuid.data(), text_of(api.DomainGetName(domain))};
}

Reply versions(const Api& api, Connect* connect) {
  unsigned long library = 0;
  unsigned long daemon = 0;
  unsigned long hypervisor = 0;
  if (api.GetVersion(&library, nullptr, nullptr) < 0) return failed(api, "virGetVersion");
  if (api.ConnectGetLibVersion(connect, &daemon) < 0) return failed(api, "virConnectGetLibVersion");
  // A driver without a hypervisor of its own has no version of it, which is 0 here.
  if (api.ConnectGetVersion(connect, &hypervisor) < 0) hypervisor = 0;
  return {{}, {{std::to_string(library), std::to_string(daemon), std::to_string(hypervisor)}}};
}

// UUID, name, whether it runs, whether it is kept, and the number that libvirt gave it at this start (""
// without one). None of a domain that ended meanwhile: it is in no list.
std::optional<std::vector<std::string>> state_of(const Api& api, Domain* domain) {
  auto row = row_of(api, domain);
  const int active = api.DomainIsActive(domain);
  const int kept = active < 0 ? active : api.DomainIsPersistent(domain);
  if (kept < 0) return {};
  // It is in the object, as the look-up or the list gave it.
  const unsigned id = active == 0 ? kNoId : api.DomainGetID(domain);
  row.insert(row.end(),
             {std::to_string(active), std::to_string(kept), id == kNoId ? "" : std::to_string(id)});
  return row;
}

// A row each, as of state_of().
Reply domains(const Api& api, Connect* connect, unsigned flags) {
  Domain** list = nullptr;
  const int n = api.ConnectListAllDomains(connect, &list, flags);
  if (n < 0) return failed(api, "virConnectListAllDomains");
  const std::unique_ptr<Domain*, decltype(&std::free)> array(list, &std::free);
  Reply reply;
  for (int i = 0; i < n; ++i) {
    const DomainHandle domain(list[i], {&api});
    auto row = state_of(api, domain.get());
    if (row) {
      reply.rows.push_back(std::move(*row));
      continue;
    }
    // What a lost connection did not answer is not absent.
    auto fault = last_error(api, "virDomainIsActive");
    if (fault.code != kNoDomain) return {fault, {}};
  }
  return reply;
}

// A row each: name, XML.
Reply networks(const Api& api, Connect* connect, unsigned flags) {
  Network** list = nullptr;
  const int n = api.ConnectListAllNetworks(connect, &list, flags);
  if (n < 0) return failed(api, "virConnectListAllNetworks");
  const std::unique_ptr<Network*, decltype(&std::free)> array(list, &std::free);
  Reply reply;
  for (int i = 0; i < n; ++i) {
    const auto free_network = [&api](Network* network) { api.NetworkFree(network); };
    const std::unique_ptr<Network, decltype(free_network)> network(list[i], free_network);
    const auto xml = owned(api.NetworkGetXMLDesc(network.get(), 0));
    if (xml != nullptr) {
      reply.rows.push_back({text_of(api.NetworkGetName(network.get())), xml.get()});
      continue;
    }
    auto fault = last_error(api, "virNetworkGetXMLDesc");
    if (fault.code != kNoNetwork) return {fault, {}};
  }
  return reply;
}

Reply of_domain(const Api& api, Connect* connect, const Request& request) {
  const DomainHandle domain(api.DomainLookupByUUIDString(connect, request.text.c_str()), {&api});
  if (domain == nullptr) return failed(api, "virDomainLookupByUUIDString");
  if (request.op == Op::kDomain) {
    auto row = state_of(api, domain.get());
    if (!row) return failed(api, "virDomainIsActive");
    return {{}, {std::move(*row)}};
  }
  if (request.op == Op::kUndefine) {
    if (api.DomainUndefineFlags(domain.get(), request.flags) < 0)
      return failed(api, "virDomainUndefineFlags");
    return {};
  }
  const auto xml = owned(api.DomainGetXMLDesc(domain.get(), request.flags));
  if (xml == nullptr) return failed(api, "virDomainGetXMLDesc");
  return {{}, {{xml.get()}}};
}

Reply move_device(const Api& api, Connect* connect, const Request& request) {
  const auto end = request.text.find('\n');
  const std::string uuid = request.text.substr(0, end);
  const std::string xml = end == std::string::npos ? "" : request.text.substr(end + 1);
  const DomainHandle domain(api.DomainLookupByUUIDString(connect, uuid.c_str()), {&api});
  if (domain == nullptr) return failed(api, "virDomainLookupByUUIDString");
  if (request.op == Op::kAttach) {
    if (api.DomainAttachDeviceFlags(domain.get(), xml.c_str(), request.flags) < 0)
      return failed(api, "virDomainAttachDeviceFlags");
  } else if (api.DomainDetachDeviceFlags(domain.get(), xml.c_str(), request.flags) < 0) {
    return failed(api, "virDomainDetachDeviceFlags");
  }
  return {};
}

Reply define(const Api& api, Connect* connect, const Request& request) {
  const DomainHandle domain(api.DomainDefineXMLFlags(connect, request.text.c_str(), request.flags), {&api});
  if (domain == nullptr) return failed(api, "virDomainDefineXMLFlags");
  return {{}, {row_of(api, domain.get())}};
}

Reply to_native(const Api& api, Connect* connect, const Request& request) {
  const auto words = owned(api.ConnectDomainXMLToNative(connect, "qemu-argv", request.text.c_str(), 0));
  if (words == nullptr) return failed(api, "virConnectDomainXMLToNative");
  return {{}, {{words.get()}}};
}

}  // namespace

class Link {
 public:
  Link(const Api& api, Connect* connect) : api_(api), connect_(connect) {}
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  Link(Link&&) = delete;
  Link& operator=(Link&&) = delete;
  ~Link() {
    // Callbacks keep the connection: without this it would never be closed.
    for (const int callback : callbacks_) api_.ConnectDomainEventDeregisterAny(connect_, callback);
    // A driver that never tells (test:///default) takes the callback, and never frees what it was given.
    if (close_ear_ != nullptr && api_.ConnectUnregisterCloseCallback(connect_, on_close) == 0)
      close_ear_->itself.reset();
    api_.ConnectClose(connect_);
  }

  [[nodiscard]] Connect* get() const { return connect_; }

  // One call at a time: libvirt 9.0.0's client crashes in a second caller when the connection is lost.
  std::mutex& alone() { return alone_; }

  // Keepalive, and who hears of what: before anything is asked, so that nothing is missed. A driver without
  // either (test:///default) goes without.
  std::optional<Fault> prepare(const Listener& listener, unsigned number, bool with_events) {
    api_.ConnectSetKeepAlive(connect_, kKeepAliveSeconds, kKeepAliveCount);
    auto ear = make_ear(api_, listener, number);
    if (api_.ConnectRegisterCloseCallback(connect_, on_close, ear.get(), free_ear) == 0) {
      close_ear_ = ear;
    } else {
      ear->itself.reset();
    }
    if (!with_events) return {};
    const std::array<std::pair<int, AnyFunction>, 4> wanted = {{
        {kLifecycle, reinterpret_cast<AnyFunction>(on_lifecycle)},
        {kDeviceAdded, reinterpret_cast<AnyFunction>(on_added)},
        {kDeviceRemoved, reinterpret_cast<AnyFunction>(on_removed)},
        {kDeviceRemovalFailed, reinterpret_cast<AnyFunction>(on_removal_failed)},
    }};
    for (const auto& [id, function] : wanted) {
      ear = make_ear(api_, listener, number);
      const int callback =
          api_.ConnectDomainEventRegisterAny(connect_, nullptr, id, function, ear.get(), free_ear);
      if (callback < 0) {
        ear->itself.reset();
        return last_error(api_, "virConnectDomainEventRegisterAny");
      }
      callbacks_.push_back(callback);
    }
    return {};
  }

 private:
  const Api& api_;
  Connect* const connect_;
  std::mutex alone_;
  std::shared_ptr<Ear> close_ear_;
  std::vector<int> callbacks_;
};

std::shared_ptr<Link> Connections::link(unsigned connection) {
  const std::scoped_lock lock(mutex_);
  const auto found = links_.find(connection);
  return found == links_.end() ? nullptr : found->second;
}

Reply Connections::open(const Api& api, const Request& request) {
  const bool read_only = (request.flags & kReadOnly) != 0;
  Connect* connect =
      read_only ? api.ConnectOpenReadOnly(request.text.c_str()) : api.ConnectOpen(request.text.c_str());
  if (connect == nullptr) return failed(api, read_only ? "virConnectOpenReadOnly" : "virConnectOpen");
  const auto link = std::make_shared<Link>(api, connect);
  unsigned number = 0;
  {
    const std::scoped_lock lock(mutex_);
    number = ++last_;
  }
  if (auto fault = link->prepare(listener_, number, (request.flags & kWithEvents) != 0)) return {fault, {}};
  const std::scoped_lock lock(mutex_);
  links_.emplace(number, link);
  return {{}, {{std::to_string(number)}}};
}

Reply Connections::perform(const Request& request) {
  Fault fault;
  const Api* api = load(fault);
  if (api == nullptr) return {fault, {}};
  api->ResetLastError();
  if (request.op == Op::kOpen) return open(*api, request);
  const auto held = link(request.connection);
  if (held == nullptr) return {Fault{0, 0, "the connection is closed", "close"}, {}};
  if (request.op == Op::kClose) {
    const std::scoped_lock lock(mutex_);
    links_.erase(request.connection);
    return {};
  }
  const std::scoped_lock alone(held->alone());
  Connect* connect = held->get();
  switch (request.op) {
    case Op::kVersions:
      return versions(*api, connect);
    case Op::kDomains:
      return domains(*api, connect, request.flags);
    case Op::kNetworks:
      return networks(*api, connect, request.flags);
    case Op::kDefine:
      return define(*api, connect, request);
    case Op::kToNative:
      return to_native(*api, connect, request);
    case Op::kAttach:
    case Op::kDetach:
      return move_device(*api, connect, request);
    case Op::kDomain:
    case Op::kDomainXml:
    case Op::kUndefine:
      return of_domain(*api, connect, request);
    case Op::kOpen:
    case Op::kClose:
      break;
  }
  return {};
}

}  // namespace hostdev::libvirt
