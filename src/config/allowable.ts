/**
 * The guards that an allowance may lift, `--allow` for an admin and `[[allow]]` for the hook. What each stands for:
 * src/binding/guards.ts.
 */
export const ALLOWABLE_GUARDS = [
  'vfs',
  'vendor-vfio',
  'in-use',
  'other-owner',
  'disk',
  'network',
  'display',
  'console',
  'memory',
  'mdev',
  'vdpa',
  'rdma',
  'not-measured',
] as const;

export type AllowableGuard = (typeof ALLOWABLE_GUARDS)[number];
