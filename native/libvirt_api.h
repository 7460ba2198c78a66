// The functions of libvirt.so.0 that we call, found at run time: hostdev starts, and is built, without
// libvirt. Their types are opaque, and of virError only the fields at its start are read, which no libvirt
// has moved since 0.1.0. Ownership: the library is never unloaded, since its threads and ours may be in it
// until the end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace hostdev::libvirt {

struct Connect;
struct Domain;
struct Network;
// include/libvirt/virterror.h
struct LastError {
  int code;
  int domain;
  const char* message;
};

using FreeFunction = void (*)(void*);
using CloseFunction = void (*)(Connect*, int reason, void*);
using AnyFunction = void (*)();

// Each named as in include/libvirt/libvirt.h, without "vir"; all are in libvirt 4.1.0 and later.
struct Api {
  int (*EventRegisterDefaultImpl)();
  int (*EventRunDefaultImpl)();
  void (*SetErrorFunc)(void*, void (*)(void*, void*));
  void (*ResetLastError)();
  const LastError* (*GetLastError)();
  int (*GetVersion)(unsigned long*, const char*, unsigned long*);
  Connect* (*ConnectOpen)(const char*);
  Connect* (*ConnectOpenReadOnly)(const char*);
  int (*ConnectClose)(Connect*);
  int (*ConnectSetKeepAlive)(Connect*, int interval, unsigned count);
  int (*ConnectRegisterCloseCallback)(Connect*, CloseFunction, void*, FreeFunction);
  int (*ConnectUnregisterCloseCallback)(Connect*, CloseFunction);
  int (*ConnectDomainEventRegisterAny)(Connect*, Domain*, int id, AnyFunction, void*, FreeFunction);
  int (*ConnectDomainEventDeregisterAny)(Connect*, int callback);
  int (*ConnectGetVersion)(Connect*, unsigned long*);
  int (*ConnectGetLibVersion)(Connect*, unsigned long*);
  int (*ConnectListAllDomains)(Connect*, Domain***, unsigned flags);
  int (*ConnectListAllNetworks)(Connect*, Network***, unsigned flags);
  char* (*ConnectDomainXMLToNative)(Connect*, const char* format, const char* xml, unsigned flags);
  Domain* (*DomainLookupByUUIDString)(Connect*, const char*);
  Domain* (*DomainDefineXMLFlags)(Connect*, const char* xml, unsigned flags);
  int (*DomainUndefineFlags)(Domain*, unsigned flags);
  const char* (*DomainGetName)(Domain*);
  int (*DomainGetUUIDString)(Domain*, char*);
  unsigned (*DomainGetID)(Domain*);
  int (*DomainIsActive)(Domain*);
  int (*DomainIsPersistent)(Domain*);
  int (*DomainAttachDeviceFlags)(Domain*, const char* xml, unsigned flags);
  int (*DomainDetachDeviceFlags)(Domain*, const char* xml, unsigned flags);
  char* (*DomainGetXMLDesc)(Domain*, unsigned flags);
  int (*DomainFree)(Domain*);
  const char* (*NetworkGetName)(Network*);
  char* (*NetworkGetXMLDesc)(Network*, unsigned flags);
  int (*NetworkFree)(Network*);
};

// Why a call failed. `domain` and `code` are libvirt's own (virterror.h); both are 0 when it is not libvirt
// that says so, and `call` is then "dlopen", "dlsym" or "pthread_create".
struct Fault {
  int domain = 0;
  int code = 0;
  std::string message;
  std::string call;
};

// Loads the library, once; from then on a thread of ours runs libvirt's event loop, which must be there
// before the first open: without it no keepalive is answered. A library that is not there is looked for
// again.
const Api* load(Fault& fault);

// What libvirt says of the call that has just failed on this thread.
Fault last_error(const Api& api, const char* call);

}  // namespace hostdev::libvirt
