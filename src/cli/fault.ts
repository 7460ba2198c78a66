/** What a command raised, as an error of ours: an errno that nobody worded, or a fault. */
import { HostdevError, isErrno } from '../errors.ts';

export function asHostdevError(e: unknown): HostdevError {
  if (e instanceof HostdevError) return e;
  const message = e instanceof Error ? e.message : String(e);
  if (isErrno(e, 'EACCES', 'EPERM')) return new HostdevError('HOSTDEV_NOT_PERMITTED', message, { cause: e });
  if (isErrno(e, 'ETIMEDOUT')) return new HostdevError('HOSTDEV_TIMEOUT', message, { cause: e });
  // sysfs is never full nor read-only in part: it is our own state that could not be written.
  if (isErrno(e, 'EROFS', 'ENOSPC', 'EDQUOT')) return new HostdevError('HOSTDEV_STORE', message, { cause: e });
  if (e instanceof Error && 'syscall' in e) return new HostdevError('HOSTDEV_SYSFS', message, { cause: e });
  return new HostdevError('HOSTDEV_INTERNAL', message, { cause: e });
}
