// hostdev as it is started by its name (dist/hostdev.js is a line of shell that comes here).
#pragma once

namespace hostdev {

// Becomes node with the script (an absolute path) and its words, from the startup snapshot beside the script
// where src/warm.ts has made one for this very node, folder and processor. Returns an exit code when there is
// no node.
int run_launcher(const char* script, char** words);

}  // namespace hostdev
