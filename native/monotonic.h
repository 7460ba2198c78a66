// Time that nobody sets: deadlines are counted with it.
#pragma once

#include <ctime>

namespace hostdev {

// Seconds since some moment of this boot (CLOCK_MONOTONIC).
inline double monotonic_seconds() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

}  // namespace hostdev
