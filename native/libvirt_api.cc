#include "libvirt_api.h"

#include <dlfcn.h>

#include <array>
#include <chrono>
#include <mutex>
#include <system_error>
#include <thread>

namespace hostdev::libvirt {

namespace {

constexpr auto kLibrary = "libvirt.so.0";
// A loop whose poll fails at once must not take a whole processor.
constexpr auto kPause = std::chrono::milliseconds(100);

template <typename Function>
bool find(void* library, const char* name, Function& function, Fault& fault) {
  void* found = dlsym(library, name);
  if (found == nullptr) {
    fault = {0, 0, std::string(kLibrary) + " has no " + name + ": it is older than 4.1.0", "dlsym"};
    return false;
  }
  // POSIX has dlsym give functions as void*.
  function = reinterpret_cast<Function>(found);
  return true;
}

bool find_all(void* so, Api& a, Fault& fault) {
  return find(so, "virEventRegisterDefaultImpl", a.EventRegisterDefaultImpl, fault) &&
         find(so, "virEventRunDefaultImpl", a.EventRunDefaultImpl, fault) &&
         find(so, "virSetErrorFunc", a.SetErrorFunc, fault) &&
         find(so, "virResetLastError", a.ResetLastError, fault) &&
         find(so, "virGetLastError", a.GetLastError, fault) &&
         find(so, "virGetVersion", a.GetVersion, fault) && find(so, "virConnectOpen", a.ConnectOpen, fault) &&
         find(so, "virConnectOpenReadOnly", a.ConnectOpenReadOnly, fault) &&
         find(so, "virConnectClose", a.ConnectClose, fault) &&
         find(so, "virConnectSetKeepAlive", a.ConnectSetKeepAlive, fault) &&
         find(so, "virConnectRegisterCloseCallback", a.ConnectRegisterCloseCallback, fault) &&
         find(so, "virConnectUnregisterCloseCallback", a.ConnectUnregisterCloseCallback, fault) &&
         find(so, "virConnectDomainEventRegisterAny", a.ConnectDomainEventRegisterAny, fault) &&
         find(so, "virConnectDomainEventDeregisterAny", a.ConnectDomainEventDeregisterAny, fault) &&
         find(so, "virConnectGetVersion", a.ConnectGetVersion, fault) &&
         find(so, "virConnectGetLibVersion", a.ConnectGetLibVersion, fault) &&
         find(so, "virConnectListAllDomains", a.ConnectListAllDomains, fault) &&
         find(so, "virConnectListAllNetworks", a.ConnectListAllNetworks, fault) &&
         find(so, "virConnectDomainXMLToNative", a.ConnectDomainXMLToNative, fault) &&
         find(so, "virDomainLookupByUUIDString", a.DomainLookupByUUIDString, fault) &&
         find(so, "virDomainDefineXMLFlags", a.DomainDefineXMLFlags, fault) &&
         find(so, "virDomainUndefineFlags", a.DomainUndefineFlags, fault) &&
         find(so, "virDomainGetName", a.DomainGetName, fault) &&
         find(so, "virDomainGetUUIDString", a.DomainGetUUIDString, fault) &&
         find(so, "virDomainGetID", a.DomainGetID, fault) &&
         find(so, "virDomainIsActive", a.DomainIsActive, fault) &&
         find(so, "virDomainIsPersistent", a.DomainIsPersistent, fault) &&
         find(so, "virDomainAttachDeviceFlags", a.DomainAttachDeviceFlags, fault) &&
         find(so, "virDomainDetachDeviceFlags", a.DomainDetachDeviceFlags, fault) &&
         find(so, "virDomainGetXMLDesc", a.DomainGetXMLDesc, fault) &&
         find(so, "virDomainFree", a.DomainFree, fault) &&
         find(so, "virNetworkGetName", a.NetworkGetName, fault) &&
         find(so, "virNetworkGetXMLDesc", a.NetworkGetXMLDesc, fault) &&
         find(so, "virNetworkFree", a.NetworkFree, fault);
}

// libvirt prints every error on stderr unless somebody else takes it.
void ignore_error(void* /*data*/, void* /*error*/) {}

// For as long as the process lives: what answers keepalives must never be waited for, nor wait for anybody.
bool start_loop(const Api& api, Fault& fault) {
  api.SetErrorFunc(nullptr, ignore_error);
  if (api.EventRegisterDefaultImpl() < 0) {
    fault = last_error(api, "virEventRegisterDefaultImpl");
    return false;
  }
  try {
    std::thread([&api] {
      while (true) {
        if (api.EventRunDefaultImpl() < 0) std::this_thread::sleep_for(kPause);
      }
    }).detach();
  } catch (const std::system_error& e) {
    fault = {0, 0, e.what(), "pthread_create"};
    return false;
  }
  return true;
}

}  // namespace

const Api* load(Fault& fault) {
  static std::mutex mutex;
  static Api api{};
  static bool is_ready = false;
  const std::scoped_lock lock(mutex);
  if (is_ready) return &api;
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* why = dlerror();
    fault = {0, 0, why == nullptr ? kLibrary : why, "dlopen"};
    return nullptr;
  }
  is_ready = find_all(library, api, fault) && start_loop(api, fault);
  return is_ready ? &api : nullptr;
}

Fault last_error(const Api& api, const char* call) {
  const LastError* error = api.GetLastError();
  if (error == nullptr) return {0, 0, "no reason is given", call};
  return {error->domain, error->code, error->message == nullptr ? "" : error->message, call};
}

}  // namespace hostdev::libvirt
