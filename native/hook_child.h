// node as the hook's child: started with nothing of libvirt's open, holding its guest's lock, awaited no
// longer than libvirt may be kept waiting, and left behind where it cannot end.
//
// Who owns what: the parent has the reading ends of two pipes (the child's stderr; a status pipe that exec
// closes) and a pidfd. The child has the domain's lock, taken before it becomes node, at a number that node
// keeps without knowing of it: the kernel gives the lock up when node ends, however it ends. Nobody waits for
// a child that was killed: one in D state does not die.
#pragma once

#include <sys/types.h>

#include <string>

namespace hostdev {

struct ChildJob {
  // Absolute paths of node and of its script.
  std::string program;
  std::string cli;
  // "/" or the simulated host's root.
  std::string root;
  std::string name;
  std::string operation;
  std::string sub_operation;
  std::string extra;
  // The whole domain XML: the child's stdin.
  std::string xml;
  // Of the domain; empty when it has none, and then there is no lock to take.
  std::string uuid;
  // When the hook began (monotonic_seconds), how long libvirt is kept waiting, how long node may take: a
  // release goes on after libvirt was answered.
  double started = 0;
  double patience = 0;
  double node_patience = 0;
  // Who called the hook: libvirtd.
  pid_t caller = 0;
  // True: its stderr is collected, and past the deadline it is asked to stop (it undoes), then killed; it is
  // asked so too when its caller ends, or this process. False: it is left running.
  bool may_fail = false;
};

struct ChildOutcome {
  enum class End {
    kExited,      // with `code`
    kSignalled,   // by somebody else, with signal `code`
    kOverdue,     // did not end in time, or only because we stopped it
    kNotStarted,  // exec failed with errno `code`
    kNoProcess,   // no pipe, memory or process was to be had: errno `code`
  };
  End end = End::kOverdue;
  int code = 0;
  // It never got further than waiting for the domain's lock.
  bool waited_for_lock = false;
  // The last of what it said on stderr.
  std::string errors;
};

// Starts node and waits as `job` says. Errors are in the outcome.
ChildOutcome run_child(const ChildJob& job);

}  // namespace hostdev
