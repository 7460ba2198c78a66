#include "libvirt_calls.h"

#include <array>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>

#include "libvirt_api.h"

namespace hostdev::libvirt {

namespace {

// libvirt/libvirt-domain.h, virterror.h.
constexpr int kUuidSize = 37;
constexpr unsigned kXmlInactive = 2;
constexpr int kNoDomain = 42;
constexpr int kNoNetwork = 43;
constexpr int kEventLifecycle = 0;
constexpr int kEventDeviceRemoved = 15;
constexpr int kEventDeviceAdded = 19;
constexpr int kEventDeviceRemovalFailed = 22;
// A daemon that is silent for so long is taken for gone (contract 14): calls to it come back then.
constexpr int kKeepAliveSeconds = 1;
constexpr unsigned kKeepAliveCount = 2;

const Api& lib() {
  std::string why;
  return api(why);
}

// What a call left in this thread; thrown by whoever saw it fail, and caught in perform().
struct Failed {
  CallError error;
};

[[noreturn]] void fail(const char* function) {
  Failed failed;
  failed.error.call = function;
  if (const Error* left = lib().virGetLastError(); left != nullptr) {
    failed.error.code = left->code;
    failed.error.domain = left->domain;
    if (left->message != nullptr) failed.error.message = left->message;
  }
  throw failed;
}

struct FreeText {
  void operator()(char* text) const { free(text); }  // NOLINT(cppcoreguidelines-no-malloc): libvirt made it
};
struct FreeDomain {
  void operator()(Domain* d) const { lib().virDomainFree(d); }
};
struct FreeNetwork {
  void operator()(Network* n) const { lib().virNetworkFree(n); }
};
using Text = std::unique_ptr<char, FreeText>;
using OwnDomain = std::unique_ptr<Domain, FreeDomain>;
using OwnNetwork = std::unique_ptr<Network, FreeNetwork>;

std::string text_of(char* made, const char* function) {
  const Text text(made);
  if (text == nullptr) fail(function);
  return text.get();
}

std::string uuid_of(Domain* domain) {
  std::array<char, kUuidSize> uuid{};
  if (lib().virDomainGetUUIDString(domain, uuid.data()) < 0) fail("virDomainGetUUIDString");
  return uuid.data();
}

int yes(int answer, const char* function) {
  if (answer < 0) fail(function);
  return answer;
}

uint32_t number_of(void* opaque) {
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(opaque));
}
void* opaque_of(uint32_t number) {
  return reinterpret_cast<void*>(static_cast<uintptr_t>(number));
}

// Name and UUID are in the object that the event brings: asking for them is no call to the daemon.
Event event_of(void* opaque, Domain* domain, const char* kind) {
  Event event;
  event.connection = number_of(opaque);
  event.kind = kind;
  if (domain == nullptr) return event;
  if (const char* name = lib().virDomainGetName(domain); name != nullptr) event.name = name;
  std::array<char, kUuidSize> uuid{};
  if (lib().virDomainGetUUIDString(domain, uuid.data()) == 0) event.uuid = uuid.data();
  return event;
}

int lifecycle(Connect*, Domain* domain, int happened, int detail, void* opaque) {
  auto event = event_of(opaque, domain, "lifecycle");
  event.event = happened;
  event.detail = detail;
  tell(std::move(event));
  return 0;
}

void device(void* opaque, Domain* domain, const char* alias, const char* kind) {
  auto event = event_of(opaque, domain, kind);
  if (alias != nullptr) event.alias = alias;
  tell(std::move(event));
}
void added(Connect*, Domain* d, const char* alias, void* opaque) {
  device(opaque, d, alias, "device-added");
}
void removed(Connect*, Domain* d, const char* alias, void* opaque) {
  device(opaque, d, alias, "device-removed");
}
void kept(Connect*, Domain* d, const char* alias, void* opaque) {
  device(opaque, d, alias, "device-removal-failed");
}

void closed(Connect*, int reason, void* opaque) {
  auto event = event_of(opaque, nullptr, "closed");
  event.detail = reason;
  tell(std::move(event));
}

class Connection {
 public:
  Connection(const std::string& uri, bool read_only, uint32_t number) {
    const char* name = uri.empty() ? nullptr : uri.c_str();
    connect_ = read_only ? lib().virConnectOpenReadOnly(name) : lib().virConnectOpen(name);
    if (connect_ == nullptr) fail(read_only ? "virConnectOpenReadOnly" : "virConnectOpen");
    // Drivers inside the library (test:///) have neither: they cannot be lost.
    lib().virConnectSetKeepAlive(connect_, kKeepAliveSeconds, kKeepAliveCount);
    lib().virConnectRegisterCloseCallback(connect_, closed, opaque_of(number), nullptr);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    for (const int callback : callbacks_) lib().virConnectDomainEventDeregisterAny(connect_, callback);
    lib().virConnectUnregisterCloseCallback(connect_, closed);
    lib().virConnectClose(connect_);
    lib().virResetLastError();
  }

  [[nodiscard]] Connect* get() const { return connect_; }

  void listen(uint32_t number) {
    listen_to(kEventLifecycle, reinterpret_cast<AnyEvent>(lifecycle), number);
    listen_to(kEventDeviceRemoved, reinterpret_cast<AnyEvent>(removed), number);
    listen_to(kEventDeviceAdded, reinterpret_cast<AnyEvent>(added), number);
    listen_to(kEventDeviceRemovalFailed, reinterpret_cast<AnyEvent>(kept), number);
  }

 private:
  void listen_to(int event, AnyEvent function, uint32_t number) {
    const int callback = lib().virConnectDomainEventRegisterAny(connect_, nullptr, event, function,
                                                                opaque_of(number), nullptr);
    if (callback < 0) fail("virConnectDomainEventRegisterAny");
    const std::lock_guard lock(mutex_);
    callbacks_.push_back(callback);
  }

  Connect* connect_ = nullptr;
  std::mutex mutex_;
  std::vector<int> callbacks_;
};

using Shared = std::shared_ptr<Connection>;

// A call holds its connection, so that closing it meanwhile waits for the call.
class Connections {
 public:
  uint32_t add(const std::string& uri, bool read_only) {
    uint32_t number = 0;
    {
      const std::lock_guard lock(mutex_);
      number = ++last_;
    }
    auto connection = std::make_shared<Connection>(uri, read_only, number);
    const std::lock_guard lock(mutex_);
    open_.emplace(number, std::move(connection));
    return number;
  }
  Shared find(uint32_t number) {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(number);
    if (found == open_.end()) throw Failed{CallError{0, 0, "", "this connection is closed"}};
    return found->second;
  }
  Shared take(uint32_t number) {
    auto connection = find(number);
    const std::lock_guard lock(mutex_);
    open_.erase(number);
    return connection;
  }

 private:
  std::mutex mutex_;
  std::map<uint32_t, Shared> open_;
  uint32_t last_ = 0;
};

// Never destroyed, as libvirt_client.cc's.
Connections& connections() {
  static auto* const all = std::make_unique<Connections>().release();
  return *all;
}

// A domain or network that went meanwhile is none.
bool gone(const Failed& failed) {
  return failed.error.code == kNoDomain || failed.error.code == kNoNetwork;
}

std::vector<Field> domain_row(Domain* domain) {
  const char* name = lib().virDomainGetName(domain);
  if (name == nullptr) fail("virDomainGetName");
  const bool running = yes(lib().virDomainIsActive(domain), "virDomainIsActive") == 1;
  const bool persistent = yes(lib().virDomainIsPersistent(domain), "virDomainIsPersistent") == 1;
  const auto xml = [&](unsigned flags) {
    return text_of(lib().virDomainGetXMLDesc(domain, flags), "virDomainGetXMLDesc");
  };
  return {name,
          uuid_of(domain),
          running ? "1" : "0",
          persistent ? "1" : "0",
          running ? Field(xml(0)) : std::nullopt,
          persistent ? Field(xml(kXmlInactive)) : std::nullopt};
}

Rows domains(Connect* connect) {
  Domain** list = nullptr;
  const int count = lib().virConnectListAllDomains(connect, &list, 0);
  if (count < 0) fail("virConnectListAllDomains");
  std::vector<OwnDomain> own;
  for (int i = 0; i < count; ++i) own.emplace_back(list[i]);
  free(static_cast<void*>(list));  // NOLINT(cppcoreguidelines-no-malloc): libvirt made it
  Rows rows;
  for (const auto& domain : own) {
    try {
      rows.push_back(domain_row(domain.get()));
    } catch (const Failed& failed) {
      if (!gone(failed)) throw;
    }
  }
  return rows;
}

Rows networks(Connect* connect) {
  Network** list = nullptr;
  const int count = lib().virConnectListAllNetworks(connect, &list, 0);
  if (count < 0) fail("virConnectListAllNetworks");
  std::vector<OwnNetwork> own;
  for (int i = 0; i < count; ++i) own.emplace_back(list[i]);
  free(static_cast<void*>(list));  // NOLINT(cppcoreguidelines-no-malloc): libvirt made it
  Rows rows;
  for (const auto& network : own) {
    try {
      const char* name = lib().virNetworkGetName(network.get());
      if (name == nullptr) fail("virNetworkGetName");
      const bool active = yes(lib().virNetworkIsActive(network.get()), "virNetworkIsActive") == 1;
      rows.push_back({name, active ? "1" : "0",
                      text_of(lib().virNetworkGetXMLDesc(network.get(), 0), "virNetworkGetXMLDesc")});
    } catch (const Failed& failed) {
      if (!gone(failed)) throw;
    }
  }
  return rows;
}

OwnDomain lookup(Connect* connect, const std::string& uuid) {
  OwnDomain domain(lib().virDomainLookupByUUIDString(connect, uuid.c_str()));
  if (domain == nullptr) fail("virDomainLookupByUUIDString");
  return domain;
}

Rows versions(Connect* connect) {
  unsigned long library = 0;
  unsigned long daemon = 0;
  unsigned long hypervisor = 0;
  yes(lib().virGetVersion(&library, nullptr, nullptr), "virGetVersion");
  yes(lib().virConnectGetLibVersion(connect, &daemon), "virConnectGetLibVersion");
  yes(lib().virConnectGetVersion(connect, &hypervisor), "virConnectGetVersion");
  return {{std::to_string(library), std::to_string(daemon), std::to_string(hypervisor)}};
}

Rows define(Connect* connect, const std::string& xml, unsigned flags) {
  const OwnDomain domain(lib().virDomainDefineXMLFlags(connect, xml.c_str(), flags));
  if (domain == nullptr) fail("virDomainDefineXMLFlags");
  return {{uuid_of(domain.get()),
           text_of(lib().virDomainGetXMLDesc(domain.get(), kXmlInactive), "virDomainGetXMLDesc")}};
}

Rows act(const Request& r) {
  const auto text = [&](size_t index) -> const std::string& { return r.texts.at(index); };
  if (r.operation == "open") {
    const uint32_t number = connections().add(text(0), (r.flags & 1U) != 0);
    const auto connection = connections().find(number);
    return {{std::to_string(number), text_of(lib().virConnectGetURI(connection->get()), "virConnectGetURI")}};
  }
  if (r.operation == "close") {
    connections().take(r.connection);
    return {};
  }
  const auto connection = connections().find(r.connection);
  Connect* connect = connection->get();
  if (r.operation == "versions") return versions(connect);
  if (r.operation == "domains") return domains(connect);
  if (r.operation == "networks") return networks(connect);
  if (r.operation == "define") return define(connect, text(0), r.flags);
  if (r.operation == "xml") {
    const auto domain = lookup(connect, text(0));
    return {{text_of(lib().virDomainGetXMLDesc(domain.get(), r.flags), "virDomainGetXMLDesc")}};
  }
  if (r.operation == "undefine") {
    yes(lib().virDomainUndefine(lookup(connect, text(0)).get()), "virDomainUndefine");
    return {};
  }
  if (r.operation == "native") {
    return {{text_of(lib().virConnectDomainXMLToNative(connect, text(0).c_str(), text(1).c_str(), 0),
                     "virConnectDomainXMLToNative")}};
  }
  if (r.operation == "events") {
    connection->listen(r.connection);
    return {};
  }
  throw Failed{CallError{0, 0, "", "no such operation: " + r.operation}};
}

}  // namespace

Answer perform(const Request& request) {
  Answer answer;
  answer.id = request.id;
  lib().virResetLastError();
  try {
    answer.rows = act(request);
  } catch (const Failed& failed) {
    answer.error = failed.error;
  } catch (const std::exception& e) {
    answer.error = CallError{0, 0, request.operation, e.what()};
  }
  return answer;
}

}  // namespace hostdev::libvirt
