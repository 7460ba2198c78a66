// JavaScript counts the time and keeps node alive while it waits; here nothing does, so that neither
// libvirt's loop nor a call that hangs keeps a command from ending.
#include "libvirt_addon.h"

#include "libvirt_client.h"

namespace hostdev::libvirt {

namespace {

// What JavaScript has. Ends with it, or with the environment, whichever is first.
class Handle {
 public:
  explicit Handle(std::shared_ptr<Client> client) : client_(std::move(client)) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  Handle(Handle&&) = delete;
  Handle& operator=(Handle&&) = delete;
  ~Handle() { client_->close(); }
  [[nodiscard]] Client& client() const { return *client_; }

 private:
  const std::shared_ptr<Client> client_;
};

Client& client_argument(const Napi::CallbackInfo& info) {
  return info[0].As<Napi::External<Handle>>().Data()->client();
}

// A wake that waits while the environment ends finds nobody to run JavaScript, and no exception to hand on.
void call_wake(Napi::Env env, Napi::Function wake) {
  try {
    wake.Call({});
  } catch (const Napi::Error& e) {
    if (!e.IsEmpty()) napi_fatal_exception(env, e.Value());
  }
}

Napi::Value Open(const Napi::CallbackInfo& info) {
  auto env = info.Env();
  // One place in the queue is enough: who is woken takes all that there is.
  auto wake = Napi::ThreadSafeFunction::New(env, info[0].As<Napi::Function>(), "libvirt", 1, 1);
  wake.Unref(env);
  auto client =
      Client::create(info[1].As<Napi::Number>().Uint32Value(), [wake] { wake.NonBlockingCall(call_wake); });
  // Hooks run in reverse: this one before the function that is woken goes.
  env.AddCleanupHook([weak = std::weak_ptr(client)] {
    if (const auto held = weak.lock()) held->close();
  });
  auto handle = std::make_unique<Handle>(std::move(client));
  // The finalizer is the owner from here on: it runs when JavaScript has dropped the handle.
  return Napi::External<Handle>::New(env, handle.release(),
                                     [](Napi::Env, Handle* h) { const std::unique_ptr<Handle> owned(h); });
}

Napi::Value Ask(const Napi::CallbackInfo& info) {
  const Request request{static_cast<Op>(info[1].As<Napi::Number>().Int32Value()),
                        info[2].As<Napi::Number>().Uint32Value(), info[3].As<Napi::String>().Utf8Value(),
                        info[4].As<Napi::Number>().Uint32Value()};
  return Napi::Number::New(info.Env(), static_cast<double>(client_argument(info).ask(request)));
}

void Release(const Napi::CallbackInfo& info) {
  client_argument(info).release(info[1].As<Napi::Number>().Uint32Value());
}

Napi::Value Abandon(const Napi::CallbackInfo& info) {
  const auto id = static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value());
  const auto state = client_argument(info).abandon(id);
  const char* text = state == Client::State::kQueued ? "queued" : "running";
  return Napi::String::New(info.Env(), state == Client::State::kDone ? "done" : text);
}

Napi::Value fault_or_null(Napi::Env env, const std::optional<Fault>& fault) {
  if (!fault) return env.Null();
  auto object = Napi::Object::New(env);
  object.Set("domain", fault->domain);
  object.Set("code", fault->code);
  object.Set("message", fault->message);
  object.Set("call", fault->call);
  return object;
}

Napi::Array rows_array(Napi::Env env, const std::vector<std::vector<std::string>>& rows) {
  auto array = Napi::Array::New(env, rows.size());
  for (uint32_t i = 0; i < rows.size(); ++i) {
    auto row = Napi::Array::New(env, rows[i].size());
    for (uint32_t k = 0; k < rows[i].size(); ++k) row.Set(k, rows[i][k]);
    array.Set(i, row);
  }
  return array;
}

Napi::Value Take(const Napi::CallbackInfo& info) {
  const auto env = info.Env();
  const auto taken = client_argument(info).take();
  auto done = Napi::Array::New(env, taken.done.size());
  for (uint32_t i = 0; i < taken.done.size(); ++i) {
    const auto& [id, reply] = taken.done[i];
    auto object = Napi::Object::New(env);
    object.Set("id", static_cast<double>(id));
    object.Set("fault", fault_or_null(env, reply.fault));
    object.Set("rows", rows_array(env, reply.rows));
    done.Set(i, object);
  }
  auto events = Napi::Array::New(env, taken.events.size());
  for (uint32_t i = 0; i < taken.events.size(); ++i) {
    const auto& e = taken.events[i];
    auto object = Napi::Object::New(env);
    object.Set("kind", e.kind);
    object.Set("connection", e.connection);
    object.Set("uuid", e.uuid);
    object.Set("name", e.name);
    object.Set("number", e.number);
    object.Set("detail", e.detail);
    object.Set("alias", e.alias);
    events.Set(i, object);
  }
  auto result = Napi::Object::New(env);
  result.Set("done", done);
  result.Set("events", events);
  result.Set("gap", taken.gap);
  return result;
}

}  // namespace

void add_functions(Napi::Env env, Napi::Object& exports) {
  exports.Set("openLibvirt", Napi::Function::New<Open>(env));
  exports.Set("askLibvirt", Napi::Function::New<Ask>(env));
  exports.Set("releaseLibvirt", Napi::Function::New<Release>(env));
  exports.Set("abandonLibvirt", Napi::Function::New<Abandon>(env));
  exports.Set("takeLibvirt", Napi::Function::New<Take>(env));
}

}  // namespace hostdev::libvirt
