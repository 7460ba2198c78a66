#include "libvirt_addon.h"

#include <atomic>
#include <memory>

#include "libvirt_client.h"

namespace hostdev::libvirt {

namespace {

// One note lies in JavaScript's queue at most: whoever takes it takes all that has come.
struct Waker {
  Napi::ThreadSafeFunction function;
  std::atomic<bool> noted = false;
};

Napi::Value text_or_null(Napi::Env env, const Field& field) {
  if (!field) return env.Null();
  return Napi::String::New(env, *field);
}

Napi::Object answer_object(Napi::Env env, const Answer& answer) {
  auto object = Napi::Object::New(env);
  object.Set("id", answer.id);
  if (answer.error) {
    auto error = Napi::Object::New(env);
    error.Set("code", answer.error->code);
    error.Set("domain", answer.error->domain);
    error.Set("call", answer.error->call);
    error.Set("message", answer.error->message);
    object.Set("error", error);
    return object;
  }
  auto rows = Napi::Array::New(env, answer.rows.size());
  for (uint32_t i = 0; i < answer.rows.size(); ++i) {
    const auto& fields = answer.rows[i];
    auto row = Napi::Array::New(env, fields.size());
    for (uint32_t k = 0; k < fields.size(); ++k) row.Set(k, text_or_null(env, fields[k]));
    rows.Set(i, row);
  }
  object.Set("rows", rows);
  return object;
}

Napi::Object event_object(Napi::Env env, const Event& event) {
  auto object = Napi::Object::New(env);
  object.Set("connection", event.connection);
  object.Set("kind", event.kind);
  object.Set("uuid", event.uuid);
  object.Set("name", event.name);
  object.Set("alias", event.alias);
  object.Set("event", event.event);
  object.Set("detail", event.detail);
  return object;
}

void deliver(Napi::Env env, const Napi::Function& to) {
  std::vector<Answer> answers;
  std::vector<Event> events;
  take(answers, events);
  auto answer_list = Napi::Array::New(env, answers.size());
  for (uint32_t i = 0; i < answers.size(); ++i) answer_list.Set(i, answer_object(env, answers[i]));
  auto event_list = Napi::Array::New(env, events.size());
  for (uint32_t i = 0; i < events.size(); ++i) event_list.Set(i, event_object(env, events[i]));
  to.Call({answer_list, event_list});
}

// (deliver: (answers, events) => void): null, or why libvirt cannot be used. What waits for nothing but
// libvirt does not keep node alive: whoever asks has a deadline, which does.
Napi::Value Start(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto waker = std::make_shared<Waker>();
  waker->function = Napi::ThreadSafeFunction::New(env, info[0].As<Napi::Function>(), "libvirt", 0, 1);
  waker->function.Unref(env);
  const std::string why = start([waker] {
    if (waker->noted.exchange(true)) return;
    waker->function.NonBlockingCall([waker](Napi::Env in, Napi::Function to) {
      waker->noted = false;
      deliver(in, to);
    });
  });
  if (!why.empty()) {
    waker->function.Release();
    return Napi::String::New(env, why);
  }
  env.AddCleanupHook([] { stop(); });
  return env.Null();
}

// (id, operation, connection, texts, flags)
Napi::Value Call(const Napi::CallbackInfo& info) {
  Request request;
  request.id = info[0].As<Napi::Number>().Uint32Value();
  request.operation = info[1].As<Napi::String>().Utf8Value();
  request.connection = info[2].As<Napi::Number>().Uint32Value();
  const auto texts = info[3].As<Napi::Array>();
  for (uint32_t i = 0; i < texts.Length(); ++i)
    request.texts.push_back(texts.Get(i).As<Napi::String>().Utf8Value());
  request.flags = info[4].As<Napi::Number>().Uint32Value();
  call(std::move(request));
  return info.Env().Undefined();
}

}  // namespace

void export_to(Napi::Env env, Napi::Object exports) {
  exports.Set("libvirtStart", Napi::Function::New<Start>(env));
  exports.Set("libvirtCall", Napi::Function::New<Call>(env));
}

}  // namespace hostdev::libvirt
