// The addon's one table of functions. JavaScript validates (src/host), this trusts its arguments' types and
// turns every Failure into an Error with the fields that node's own fs errors have.
#include <fcntl.h>
#include <napi.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "helper.h"
#include "holders.h"
#include "libvirt_addon.h"
#include "lock.h"
#include "root_fs.h"
#include "scan.h"
#include "system_log.h"

namespace hostdev {

namespace {

const char* error_name(int error) {
  // glibc's own table: strerrorname_np since 2.32.
  const char* name = strerrorname_np(error);
  return name == nullptr ? "EUNKNOWN" : name;
}

[[noreturn]] void raise(Napi::Env env, const Failure& f) {
  const std::string code = error_name(f.error);
  // strerrordesc_np is strerror without its shared buffer.
  const char* known = strerrordesc_np(f.error);
  std::string text = known == nullptr ? "unknown error" : known;
  // As node words it, which differs from glibc in little else.
  if (text[0] >= 'A' && text[0] <= 'Z') text[0] = static_cast<char>(text[0] - 'A' + 'a');
  auto error = Napi::Error::New(env, code + ": " + text + ", " + f.syscall + " '" + f.path + "'");
  error.Set("code", Napi::String::New(env, code));
  error.Set("errno", Napi::Number::New(env, -f.error));
  error.Set("syscall", Napi::String::New(env, f.syscall));
  error.Set("path", Napi::String::New(env, f.path));
  throw error;
}

// Text of sysfs is bytes: latin1 keeps each as it is, and what is not ASCII is refused above.
Napi::Value latin1(Napi::Env env, const std::string& text) {
  napi_value value = nullptr;
  if (napi_create_string_latin1(env, text.data(), text.size(), &value) != napi_ok) {
    throw Napi::Error::New(env, "out of memory");
  }
  return {env, value};
}

Napi::Value text_or_null(Napi::Env env, const Text& text) {
  return text ? latin1(env, *text) : env.Null();
}

std::string text_argument(const Napi::CallbackInfo& info, size_t index) {
  return info[index].As<Napi::String>().Utf8Value();
}

Root root_argument(const Napi::CallbackInfo& info) {
  Root root;
  if (const auto failure = open_root(text_argument(info, 0), root)) raise(info.Env(), failure);
  return root;
}

Napi::Array failures_array(Napi::Env env, const std::vector<Failure>& failures) {
  auto array = Napi::Array::New(env, failures.size());
  uint32_t i = 0;
  for (const auto& f : failures) {
    auto row = Napi::Object::New(env);
    row.Set("code", error_name(f.error));
    row.Set("errno", -f.error);
    row.Set("syscall", f.syscall);
    row.Set("path", latin1(env, f.path));
    array.Set(i++, row);
  }
  return array;
}

// What many devices have in common (drivers, nodes, PFs) is one string each: making it anew for every device
// costs more than reading it.
class Shared {
 public:
  explicit Shared(Napi::Env env) : env_(env) {}
  Napi::Value operator()(const Text& text) {
    if (!text) return env_.Null();
    const auto found = values_.find(*text);
    if (found != values_.end()) return found->second;
    return values_.emplace(*text, latin1(env_, *text)).first->second;
  }

 private:
  Napi::Env env_;
  std::unordered_map<std::string, Napi::Value> values_;
};

// JavaScript makes an object of known keys in a fraction of the time that setting them from here one by one
// takes.
constexpr auto kMakeDevice =
    "(address, modalias, ids, numaNode, driver, iommuGroup, physfn, totalVfs) =>"
    " ({ address, modalias, ids, numaNode, driver, iommuGroup, physfn, totalVfs })";

Napi::Value ids_or_null(Napi::Env env, const RawDevice& d) {
  if (d.ids.empty()) return env.Null();
  auto array = Napi::Array::New(env, d.ids.size());
  for (uint32_t i = 0; i < d.ids.size(); ++i) array.Set(i, text_or_null(env, d.ids[i]));
  return array;
}

Napi::Value ScanDevices(const Napi::CallbackInfo& info) {
  const auto env = info.Env();
  const Root root = root_argument(info);
  std::vector<RawDevice> devices;
  std::vector<Failure> failures;
  scan_devices(root, devices, failures);
  const auto make = env.RunScript(kMakeDevice).As<Napi::Function>();
  Shared shared(env);
  auto array = Napi::Array::New(env, devices.size());
  uint32_t i = 0;
  for (const auto& d : devices) {
    array.Set(i++, make.Call({latin1(env, d.address), text_or_null(env, d.modalias), ids_or_null(env, d),
                              shared(d.numa_node), shared(d.driver), text_or_null(env, d.iommu_group),
                              shared(d.physfn), shared(d.total_vfs)}));
  }
  auto result = Napi::Object::New(env);
  result.Set("devices", array);
  result.Set("failures", failures_array(env, failures));
  return result;
}

Napi::Value ScanGroups(const Napi::CallbackInfo& info) {
  const auto env = info.Env();
  const Root root = root_argument(info);
  std::vector<RawGroup> groups;
  std::vector<Failure> failures;
  scan_groups(root, groups, failures);
  auto array = Napi::Array::New(env, groups.size());
  for (uint32_t i = 0; i < groups.size(); ++i) {
    const auto& g = groups[i];
    auto object = Napi::Object::New(env);
    auto devices = Napi::Array::New(env, g.devices.size());
    for (uint32_t k = 0; k < g.devices.size(); ++k) devices.Set(k, latin1(env, g.devices[k]));
    object.Set("id", latin1(env, g.id));
    object.Set("type", text_or_null(env, g.type));
    object.Set("reservedRegions", text_or_null(env, g.reserved_regions));
    object.Set("devices", devices);
    array.Set(i, object);
  }
  auto result = Napi::Object::New(env);
  result.Set("groups", array);
  result.Set("failures", failures_array(env, failures));
  return result;
}

Napi::Value ReadFile(const Napi::CallbackInfo& info) {
  const Root root = root_argument(info);
  const auto path = text_argument(info, 1);
  const auto max = static_cast<size_t>(info[2].As<Napi::Number>().Int64Value());
  Fd fd;
  std::string text;
  // O_NONBLOCK: a FIFO in somebody's tree must not hold us for ever.
  auto failure = open_in_root(root, path, O_RDONLY | O_NONBLOCK, fd);
  if (!failure) failure = read_all(fd.get(), path, max, false, text);
  if (failure) raise(info.Env(), failure);
  return latin1(info.Env(), text);
}

// So many bytes from the start: of a file that does more than be read behind them (config space).
Napi::Value ReadStart(const Napi::CallbackInfo& info) {
  const Root root = root_argument(info);
  const auto path = text_argument(info, 1);
  const auto bytes = static_cast<size_t>(info[2].As<Napi::Number>().Int64Value());
  Fd fd;
  std::string text;
  auto failure = open_in_root(root, path, O_RDONLY | O_NONBLOCK, fd);
  if (!failure) failure = read_all(fd.get(), path, bytes, true, text);
  if (failure) raise(info.Env(), failure);
  return latin1(info.Env(), text);
}

Napi::Value ReadLink(const Napi::CallbackInfo& info) {
  const Root root = root_argument(info);
  const auto path = text_argument(info, 1);
  Fd fd;
  std::string text;
  auto failure = open_in_root(root, path, O_PATH | O_NOFOLLOW, fd);
  if (!failure) failure = read_link_at(fd.get(), "", path, text);
  // What readlinkat(2) says of the descriptor of something that is no link; by its name it would be EINVAL.
  if (fd.ok() && failure.error == ENOENT) failure.error = EINVAL;
  if (failure) raise(info.Env(), failure);
  return latin1(info.Env(), text);
}

Napi::Value ReadDir(const Napi::CallbackInfo& info) {
  const auto env = info.Env();
  const Root root = root_argument(info);
  const auto path = text_argument(info, 1);
  Fd fd;
  std::vector<std::string> names;
  auto failure = open_in_root(root, path, O_RDONLY | O_DIRECTORY, fd);
  if (!failure) failure = read_names(fd.get(), path, names);
  if (failure) raise(env, failure);
  std::sort(names.begin(), names.end());
  auto array = Napi::Array::New(env, names.size());
  for (uint32_t i = 0; i < names.size(); ++i) array.Set(i, latin1(env, names[i]));
  return array;
}

// A number as text: kernfs' have 64 bits (fs/kernfs/dir.c), more than JavaScript's.
Napi::Value Inode(const Napi::CallbackInfo& info) {
  const Root root = root_argument(info);
  const auto path = text_argument(info, 1);
  Fd fd;
  struct stat is {};
  auto failure = open_in_root(root, path, O_PATH | O_DIRECTORY, fd);
  if (!failure && fstat(fd.get(), &is) != 0) failure = {errno, "fstat", path};
  if (failure) raise(info.Env(), failure);
  return Napi::String::New(info.Env(), std::to_string(is.st_ino));
}

Napi::Value Holders(const Napi::CallbackInfo& info) {
  const auto env = info.Env();
  const Root root = root_argument(info);
  const auto list = info[1].As<Napi::Array>();
  std::unordered_set<std::string> targets;
  for (uint32_t i = 0; i < list.Length(); ++i) targets.insert(list.Get(i).As<Napi::String>().Utf8Value());
  std::vector<Holder> holders;
  int unreadable = 0;
  if (const auto failure = find_holders(root, targets, holders, unreadable)) raise(env, failure);
  auto array = Napi::Array::New(env, holders.size());
  for (uint32_t i = 0; i < holders.size(); ++i) {
    auto object = Napi::Object::New(env);
    object.Set("pid", holders[i].pid);
    object.Set("command", latin1(env, holders[i].command));
    object.Set("path", latin1(env, holders[i].path));
    array.Set(i, object);
  }
  auto result = Napi::Object::New(env);
  result.Set("holders", array);
  result.Set("unreadable", unreadable);
  return result;
}

Napi::Value TryLock(const Napi::CallbackInfo& info) {
  Fd fd;
  if (const auto failure = try_lock(text_argument(info, 0), info[1].As<Napi::Boolean>().Value(), fd))
    raise(info.Env(), failure);
  if (!fd.ok()) return info.Env().Null();
  return Napi::Number::New(info.Env(), fd.release());
}

Napi::Value Unlock(const Napi::CallbackInfo& info) {
  const Fd fd(info[0].As<Napi::Number>().Int32Value());
  return info.Env().Undefined();
}

Napi::Value SystemLog(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), system_log(text_argument(info, 0), text_argument(info, 1)));
}

Napi::Value OpenHelper(const Napi::CallbackInfo& info) {
  auto helper = std::make_unique<Helper>(text_argument(info, 0), text_argument(info, 1));
  // The finalizer is the owner from here on: it runs when JavaScript has dropped the handle.
  return Napi::External<Helper>::New(info.Env(), helper.release(),
                                     [](Napi::Env, Helper* h) { const std::unique_ptr<Helper> owned(h); });
}

Helper* helper_argument(const Napi::Value& value) {
  return value.As<Napi::External<Helper>>().Data();
}

Napi::Value SendHelper(const Napi::CallbackInfo& info) {
  const auto bytes = [&](size_t index) {
    size_t size = 0;
    napi_get_value_string_latin1(info.Env(), info[index], nullptr, 0, &size);
    std::string text(size, '\0');
    napi_get_value_string_latin1(info.Env(), info[index], text.data(), size + 1, &size);
    return text;
  };
  const auto failure = helper_argument(info[0])->send(text_argument(info, 1)[0], bytes(2), bytes(3));
  if (failure) raise(info.Env(), failure);
  return info.Env().Undefined();
}

// The indices of those that have something to take; none when the time is over or a signal came.
Napi::Value WaitHelpers(const Napi::CallbackInfo& info) {
  const auto helpers = info[0].As<Napi::Array>();
  std::vector<pollfd> outputs;
  for (uint32_t i = 0; i < helpers.Length(); ++i)
    outputs.push_back({helper_argument(helpers.Get(i))->output(), POLLIN, 0});
  const double given = info[1].As<Napi::Number>().DoubleValue();
  // What is no number is no wait: clamp lets it through, and no int has its value.
  const double ms = std::isnan(given) ? 0 : std::clamp(given, 0.0, 1e9);
  const int n = poll(outputs.data(), outputs.size(), static_cast<int>(std::ceil(ms)));
  auto ready = Napi::Array::New(info.Env());
  for (uint32_t i = 0, at = 0; n > 0 && i < outputs.size(); ++i) {
    if (outputs[i].revents != 0) ready.Set(at++, Napi::Number::New(info.Env(), i));
  }
  return ready;
}

// The answer, or null when a part of it is still to come.
Napi::Value TakeHelper(const Napi::CallbackInfo& info) {
  std::string answer;
  Failure failure;
  switch (helper_argument(info[0])->take(answer, failure)) {
    case Helper::Taken::kAnswer:
      return latin1(info.Env(), answer);
    case Helper::Taken::kFailure:
      raise(info.Env(), failure);
      break;
    case Helper::Taken::kPart:
      break;
  }
  return info.Env().Null();
}

Napi::Value AbandonHelper(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), helper_argument(info[0])->abandon());
}

Napi::Value CloseHelper(const Napi::CallbackInfo& info) {
  helper_argument(info[0])->close();
  return info.Env().Undefined();
}

}  // namespace

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("scanDevices", Napi::Function::New<ScanDevices>(env));
  exports.Set("scanGroups", Napi::Function::New<ScanGroups>(env));
  exports.Set("readFile", Napi::Function::New<ReadFile>(env));
  exports.Set("readStart", Napi::Function::New<ReadStart>(env));
  exports.Set("readLink", Napi::Function::New<ReadLink>(env));
  exports.Set("readDir", Napi::Function::New<ReadDir>(env));
  exports.Set("inode", Napi::Function::New<Inode>(env));
  exports.Set("holders", Napi::Function::New<Holders>(env));
  exports.Set("tryLock", Napi::Function::New<TryLock>(env));
  exports.Set("openHelper", Napi::Function::New<OpenHelper>(env));
  exports.Set("sendHelper", Napi::Function::New<SendHelper>(env));
  exports.Set("waitHelpers", Napi::Function::New<WaitHelpers>(env));
  exports.Set("takeHelper", Napi::Function::New<TakeHelper>(env));
  exports.Set("abandonHelper", Napi::Function::New<AbandonHelper>(env));
  exports.Set("closeHelper", Napi::Function::New<CloseHelper>(env));
  exports.Set("systemLog", Napi::Function::New<SystemLog>(env));
  exports.Set("unlock", Napi::Function::New<Unlock>(env));
  libvirt::add_functions(env, exports);
  return exports;
}

}  // namespace hostdev

using hostdev::Init;
NODE_API_MODULE(hostdev, Init)
