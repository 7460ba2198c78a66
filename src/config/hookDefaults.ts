/** `[hook]` of hostdev.toml, and what counts where it is silent. The only file that hook needs where there is none. */

/** What the hook does with a device of managed='no'. */
export const UNMANAGED = ['bind', 'check', 'ignore'] as const;

/** Times in seconds: how long libvirt is kept waiting. */
export type HookSettings = {
  unmanaged: (typeof UNMANAGED)[number];
  prepare_seconds: number;
  start_seconds: number;
  other_seconds: number;
};

/** The one table of the hook's deadlines; native/hook_conf.h has a copy, which a test holds equal. */
export const HOOK_DEFAULTS: HookSettings = {
  unmanaged: 'bind',
  prepare_seconds: 30,
  start_seconds: 5,
  other_seconds: 2,
};
