// Paths below a root that is not the machine's own, through links that the input makes, by openat2 and by
// hand: nothing that is opened lies outside.
#include "root_fs.h"

#include <dlfcn.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstdarg>

#include "check.h"

namespace {
bool by_hand = false;

// In front of the root: what a link that leads out would find.
std::string make_tree() {
  const std::string outside = scratch_folder();
  const std::string root = outside + "/root";
  for (const char* folder : {"", "/a", "/a/b"}) mkdir((root + folder).c_str(), 0700);
  for (const auto& file : {outside + "/secret", root + "/a/b/file", root + "/file"})
    close(open(file.c_str(), O_WRONLY | O_CREAT, 0600));
  for (const auto& [target, name] : {std::pair("../..", "/a/up"),
                                     {"/a/b", "/abs"},
                                     {"/etc/passwd", "/out"},
                                     {"loop", "/loop"},
                                     {"../../../../../../../etc", "/a/b/dots"}})
    check(symlink(target, (root + name).c_str()) == 0, "a link can be made");
  return root;
}

constexpr std::array<std::string_view, 16> kWords = {"a",    "b",    "file",   "up",  "abs", "out",
                                                     "loop", "dots", "var",    "etc", "..",  ".",
                                                     "/",    "//",   "secret", "root"};

std::string path_of(std::string_view text) {
  std::string path;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0xf0) {
      path += kWords[byte & 0xfU];
    } else if (byte >= 0xe0) {
      path += '/';
      path += kWords[byte & 0xfU];
    } else {
      path += c;
    }
  }
  return path;
}
}  // namespace

// A kernel on which somebody renames all the time.
extern "C" long syscall(long number, ...) noexcept {
  using Syscall = long (*)(long, long, long, long, long, long, long);
  static const auto kReal = reinterpret_cast<Syscall>(dlsym(RTLD_NEXT, "syscall"));
  if (by_hand && number == SYS_openat2) {
    errno = EAGAIN;
    return -1;
  }
  // What is passed in registers: no caller here has more.
  std::array<long, 5> words{};
  va_list list;
  va_start(list, number);
  for (long& word : words) word = va_arg(list, long);
  va_end(list);
  return kReal(number, words[0], words[1], words[2], words[3], words[4], 0);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string kRoot = make_tree();
  static const std::string kLink = kRoot + "/var";
  hostdev::Root root;
  check(!hostdev::open_root(kRoot, root) && !root.is_real, "the root opens");
  if (size < 2) return 0;
  const auto text = text_of(data + 2, size - 2);
  const size_t cut = std::min<size_t>(data[1], text.size());
  const std::string target = path_of(text.substr(0, cut));
  unlink(kLink.c_str());
  if (!target.empty() && target.find('\0') == std::string::npos)
    (void)!symlink(target.c_str(), kLink.c_str());
  const std::string path = path_of(text.substr(cut));
  const int flags = (data[0] & 1U) != 0 ? O_PATH : O_RDONLY | O_NONBLOCK;
  std::array<struct stat, 2> found{};
  std::array<bool, 2> opened{};
  for (const int way : {0, 1}) {
    by_hand = way == 1;
    hostdev::Fd fd;
    const auto failure =
        hostdev::open_in_root(root, path, flags | ((data[0] & 2U) != 0 ? O_NOFOLLOW : 0), fd);
    by_hand = false;
    check(failure.error == 0 ? fd.ok() : !fd.ok(), "a failure or a descriptor");
    if (failure) continue;
    std::string where;
    check(!hostdev::read_link_at(AT_FDCWD, ("/proc/self/fd/" + std::to_string(fd.get())).c_str(), "", where),
          "a descriptor has a path");
    check(where == kRoot || where.starts_with(kRoot + "/"), "what is opened lies below the root");
    opened.at(way) = fstat(fd.get(), &found.at(way)) == 0;
    std::string bytes;
    (void)hostdev::read_all(fd.get(), path, data[0], (data[0] & 4U) != 0, bytes);
    check(bytes.size() <= static_cast<size_t>(data[0]) + 1, "no more is read than was allowed");
  }
  check(!opened[0] || !opened[1] || found[0].st_ino == found[1].st_ino, "both ways lead to the same");
  return 0;
}
