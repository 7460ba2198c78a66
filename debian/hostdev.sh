#!/bin/sh
# /usr/bin/hostdev: the program on the node that it prefers. NODE_COMPILE_CACHE would have node run code from a folder that is not ours.
unset NODE_COMPILE_CACHE
for node in /usr/bin/hostdev-node /usr/bin/node; do
  [ -x "$node" ] && exec "$node" /usr/lib/hostdev/dist/hostdev.js "$@"
done
echo "hostdev: there is no /usr/bin/hostdev-node and no /usr/bin/node: install hostdev-node, or nodejs 20.19 or later" >&2
exit 1
