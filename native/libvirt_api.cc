#include "libvirt_api.h"

#include <dlfcn.h>

#include <mutex>

namespace hostdev::libvirt {

namespace {

struct Loaded {
  Api api;
  std::string why;
};

// dlerror's text of this thread; it has no error number.
std::string reason() {
  const char* text = dlerror();
  return text == nullptr ? "unknown" : text;
}

template <typename Function>
bool find(void* library, const char* name, Function& function, std::string& why) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) why = reason();
  return function != nullptr;
}

Loaded load() {
  Loaded loaded;
  void* library = dlopen("libvirt.so.0", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    loaded.why = reason();
    return loaded;
  }
  auto& api = loaded.api;
#define HOSTDEV_LIBVIRT_FIND(Result, name, arguments) \
  if (!find(library, #name, api.name, loaded.why)) return loaded;
  HOSTDEV_LIBVIRT(HOSTDEV_LIBVIRT_FIND)
#undef HOSTDEV_LIBVIRT_FIND
  if (api.virInitialize() < 0) loaded.why = "virInitialize failed";
  // Without a function of its own libvirt prints every error on stderr.
  api.virSetErrorFunc(nullptr, [](void*, Error*) {});
  return loaded;
}

}  // namespace

const Api& api(std::string& why) {
  static const Loaded loaded = load();
  why = loaded.why;
  return loaded.api;
}

}  // namespace hostdev::libvirt
