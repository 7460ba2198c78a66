#include "netlink.h"

#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "fd.h"

namespace hostdev {

namespace {

// The answer is there when sendmsg has returned; what never comes is no reason to wait for ever.
constexpr timeval kWait = {2, 0};
// 252 VFs are 64 KiB, and one attribute has no more; the rest of a link is some kilobytes.
constexpr size_t kLargest = size_t{192} * 1024;
// Letters of others' that came first: none are due on a socket of our own.
constexpr int kMostLetters = 16;

struct Request {
  nlmsghdr head;
  ifinfomsg link;
  rtattr mask_head;
  uint32_t mask;
};

Request request_of(uint32_t index) {
  Request r{};
  r.head.nlmsg_len = sizeof r;
  r.head.nlmsg_type = RTM_GETLINK;
  r.head.nlmsg_flags = NLM_F_REQUEST;
  r.head.nlmsg_seq = 1;
  r.link.ifi_family = AF_UNSPEC;
  r.link.ifi_index = static_cast<int>(index);
  r.mask_head.rta_len = RTA_LENGTH(sizeof r.mask);
  r.mask_head.rta_type = IFLA_EXT_MASK;
  // Without their statistics the VFs that there can be fit into the one attribute that they have.
  r.mask = RTEXT_FILTER_VF | RTEXT_FILTER_SKIP_STATS;
  return r;
}

// One letter, whole: its size is asked for first, because what does not fit is cut off. From the kernel only,
// since any process may write to our port; `from_kernel` false for one that is not.
int receive(int fd, std::string& letter, bool& from_kernel) {
  ssize_t size = 0;
  do size = recv(fd, nullptr, 0, MSG_PEEK | MSG_TRUNC);
  while (size < 0 && errno == EINTR);
  if (size < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
  if (static_cast<size_t>(size) > kLargest) return EMSGSIZE;
  letter.assign(static_cast<size_t>(size), '\0');
  sockaddr_nl from{};
  socklen_t from_size = sizeof from;
  ssize_t got = 0;
  do got = recvfrom(fd, letter.data(), letter.size(), 0, reinterpret_cast<sockaddr*>(&from), &from_size);
  while (got < 0 && errno == EINTR);
  if (got < 0) return errno;
  letter.resize(static_cast<size_t>(got));
  from_kernel = from_size == sizeof from && from.nl_pid == 0;
  return 0;
}

// Sends one request and takes its answer: the kernel's errno, or 0 with the letter.
int exchange(const void* request, size_t size, std::string& letter) {
  const Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!fd.ok()) return errno;
  if (setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kWait, sizeof kWait) != 0) return errno;
  nlmsghdr asked{};
  memcpy(&asked, request, sizeof asked);
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  const auto* to = reinterpret_cast<const sockaddr*>(&kernel);
  if (sendto(fd.get(), request, size, 0, to, sizeof kernel) < 0) return errno;
  for (int letters = 0; letters < kMostLetters; ++letters) {
    bool from_kernel = false;
    if (const int error = receive(fd.get(), letter, from_kernel)) return error;
    nlmsghdr head{};
    if (!from_kernel || letter.size() < sizeof head) continue;
    memcpy(&head, letter.data(), sizeof head);
    if (head.nlmsg_seq != asked.nlmsg_seq) continue;
    if (head.nlmsg_type != NLMSG_ERROR) return 0;
    nlmsgerr error{};
    if (letter.size() < sizeof head + sizeof error) return EBADMSG;
    memcpy(&error, letter.data() + sizeof head, sizeof error);
    return error.error <= 0 ? -error.error : EBADMSG;
  }
  return ETIMEDOUT;
}

nlmsghdr head_of(const std::string& letter) {
  nlmsghdr head{};
  memcpy(&head, letter.data(), sizeof head);
  return head;
}

}  // namespace

int read_link(uint32_t index, std::string& message) {
  const Request request = request_of(index);
  std::string letter;
  if (const int error = exchange(&request, sizeof request, letter)) return error;
  const nlmsghdr head = head_of(letter);
  if (head.nlmsg_type != RTM_NEWLINK || head.nlmsg_len < sizeof head || head.nlmsg_len > letter.size())
    return EBADMSG;
  letter.resize(head.nlmsg_len);
  message = std::move(letter);
  return 0;
}

int set_link_up(uint32_t index, bool up) {
  struct {
    nlmsghdr head;
    ifinfomsg link;
  } request{};
  request.head.nlmsg_len = sizeof request;
  request.head.nlmsg_type = RTM_SETLINK;
  request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  request.head.nlmsg_seq = 1;
  request.link.ifi_family = AF_UNSPEC;
  request.link.ifi_index = static_cast<int>(index);
  request.link.ifi_flags = up ? static_cast<unsigned>(IFF_UP) : 0U;
  request.link.ifi_change = IFF_UP;
  std::string letter;
  if (const int error = exchange(&request, sizeof request, letter)) return error;
  return head_of(letter).nlmsg_type == NLMSG_ERROR ? 0 : EBADMSG;
}

}  // namespace hostdev
