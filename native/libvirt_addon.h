// The addon's functions for libvirt_client.h.
#pragma once

#include <napi.h>

namespace hostdev::libvirt {

void add_functions(Napi::Env env, Napi::Object& exports);

}  // namespace hostdev::libvirt
