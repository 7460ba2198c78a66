// The part of the addon's module table that speaks to libvirt.
#pragma once

#include <napi.h>

namespace hostdev::libvirt {

void export_to(Napi::Env env, Napi::Object exports);

}  // namespace hostdev::libvirt
