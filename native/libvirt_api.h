// What is used of libvirt.so.0, found at run time: the program starts on a machine without libvirt, and
// builds on one without its headers. Names, types and numbers are libvirt's public interface
// (include/libvirt/libvirt-domain.h, libvirt-host.h, libvirt-network.h, libvirt-event.h, virterror.h), which
// its versioned symbols keep as they are.
#pragma once

#include <string>

namespace hostdev::libvirt {

struct Connect;
struct Domain;
struct Network;

// virError, as virterror.h lays it out; what lies behind `message` is not read.
struct Error {
  int code;
  int domain;
  char* message;
};

using Free = void (*)(void* opaque);
using Closed = void (*)(Connect*, int reason, void* opaque);
using Lifecycle = int (*)(Connect*, Domain*, int event, int detail, void* opaque);
using OfDevice = void (*)(Connect*, Domain*, const char* alias, void* opaque);
// VIR_DOMAIN_EVENT_CALLBACK: every kind of event is registered as this one.
using AnyEvent = void (*)();
using ErrorFunction = void (*)(void* opaque, Error*);

// clang-format off
#define HOSTDEV_LIBVIRT(FUNCTION) \
  FUNCTION(int, virInitialize, (void)) \
  FUNCTION(int, virGetVersion, (unsigned long* library, const char* type, unsigned long* driver)) \
  FUNCTION(Error*, virGetLastError, (void)) \
  FUNCTION(void, virResetLastError, (void)) \
  FUNCTION(void, virSetErrorFunc, (void* opaque, ErrorFunction)) \
  FUNCTION(int, virEventRegisterDefaultImpl, (void)) \
  FUNCTION(int, virEventRunDefaultImpl, (void)) \
  FUNCTION(Connect*, virConnectOpen, (const char* uri)) \
  FUNCTION(Connect*, virConnectOpenReadOnly, (const char* uri)) \
  FUNCTION(int, virConnectClose, (Connect*)) \
  FUNCTION(int, virConnectSetKeepAlive, (Connect*, int seconds, unsigned count)) \
  FUNCTION(int, virConnectRegisterCloseCallback, (Connect*, Closed, void* opaque, Free)) \
  FUNCTION(int, virConnectUnregisterCloseCallback, (Connect*, Closed)) \
  FUNCTION(int, virConnectDomainEventRegisterAny, (Connect*, Domain*, int event, AnyEvent, void* opaque, Free)) \
  FUNCTION(int, virConnectDomainEventDeregisterAny, (Connect*, int callback)) \
  FUNCTION(int, virConnectGetLibVersion, (Connect*, unsigned long* version)) \
  FUNCTION(int, virConnectGetVersion, (Connect*, unsigned long* version)) \
  FUNCTION(char*, virConnectGetURI, (Connect*)) \
  FUNCTION(int, virConnectListAllDomains, (Connect*, Domain*** domains, unsigned flags)) \
  FUNCTION(int, virConnectListAllNetworks, (Connect*, Network*** networks, unsigned flags)) \
  FUNCTION(char*, virConnectDomainXMLToNative, (Connect*, const char* format, const char* xml, unsigned flags)) \
  FUNCTION(const char*, virNetworkGetName, (Network*)) \
  FUNCTION(char*, virNetworkGetXMLDesc, (Network*, unsigned flags)) \
  FUNCTION(int, virNetworkIsActive, (Network*)) \
  FUNCTION(int, virNetworkFree, (Network*)) \
  FUNCTION(Domain*, virDomainLookupByUUIDString, (Connect*, const char* uuid)) \
  FUNCTION(Domain*, virDomainDefineXMLFlags, (Connect*, const char* xml, unsigned flags)) \
  FUNCTION(int, virDomainUndefine, (Domain*)) \
  FUNCTION(const char*, virDomainGetName, (Domain*)) \
  FUNCTION(int, virDomainGetUUIDString, (Domain*, char* uuid)) \
  FUNCTION(int, virDomainIsActive, (Domain*)) \
  FUNCTION(int, virDomainIsPersistent, (Domain*)) \
  FUNCTION(char*, virDomainGetXMLDesc, (Domain*, unsigned flags)) \
  FUNCTION(int, virDomainFree, (Domain*))
// clang-format on

struct Api {
#define HOSTDEV_LIBVIRT_MEMBER(Result, name, arguments) Result(*name) arguments = nullptr;
  HOSTDEV_LIBVIRT(HOSTDEV_LIBVIRT_MEMBER)
#undef HOSTDEV_LIBVIRT_MEMBER
};

// Loads libvirt.so.0, once for the life of the process; what it says when that fails is in `why`, else it is
// empty. The library is never unloaded: its threads may still be in it.
const Api& api(std::string& why);

}  // namespace hostdev::libvirt
