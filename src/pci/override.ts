/** The attribute driver_override as the kernel prints it. */

/**
 * What a text of driver_override names, null for none: drivers/base/bus.c prints "(null)" for an unset one, and an
 * empty line means the same. It is as hostile as any text of sysfs: who prints it makes it safe.
 */
export function parseOverride(text: string): string | null {
  const line = text.split('\n', 1)[0] ?? '';
  return line === '' || line === '(null)' ? null : line;
}
