/** The boot display in use: a console draws on it, the firmware's frame buffer lies on it, a process draws on it. */

import type { Holder } from '../../addon/native.ts';
import { bootFrameBuffers, drawingConsoles } from '../../host/display.ts';
import type { Look } from '../../host/look.ts';
import type { Address } from '../../pci/address.ts';
import type { PciDevice } from '../../pci/inventory.ts';
import { safe } from '../../text/safe.ts';
import type { Use } from '../guards.ts';

/** Base class 03: display controllers. */
const isDisplay = (d: Pick<PciDevice, 'class'>): boolean => d.class?.startsWith('03') === true;

/** The names of the firmware's frame buffers that lie on a function. */
const frameBuffersOn = (look: Look, address: Address): string[] =>
  bootFrameBuffers(look).flatMap((b) => (b.address === address ? [b.name] : []));

/**
 * What a guest meets with a device that VFIO has while the firmware's frame buffer still lies on it (vfio-pci cannot
 * request that BAR); null when none does.
 */
export function reservedBar(look: Look, address: Address): string | null {
  const buffers = frameBuffersOn(look, address);
  return buffers.length === 0
    ? null
    : `the firmware's frame buffer (${buffers.join(', ')}) lies on it: its guest finds "BAR can't reserve" ('hostdev doctor' prints the line to change)`;
}

/**
 * drivers/pci/vgaarb.c marks the display that the firmware booted with boot_vga; which frame buffer a console draws on
 * is not shown, so with a console drawing, that one and the one that has fb0 count. A driverless GPU may still be drawn
 * on, through the firmware's frame buffer. `drawing` holds its DRM nodes open.
 */
export function displayUses(
  look: Look,
  device: Pick<PciDevice, 'address' | 'class' | 'driver'>,
  drawing: readonly Holder[],
): Use[] {
  const { host } = look;
  const buffers = frameBuffersOn(look, device.address);
  const boot = look.attribute(host.device(device.address, 'boot_vga'))?.trim() === '1';
  if (boot || isDisplay(device))
    look.mustLines(host.iomem); // notes what the frame buffers pass over
  else if (buffers.length === 0) return [];
  const uses: Use[] = [];
  const say = (reason: string, vital: boolean): void => {
    uses.push({ guard: 'display', reason, vital });
  };
  const consoles = drawingConsoles(look);
  const inText = (consoles?.text.length ?? 0) > 0;
  const onBuffer = (consoles?.frameBuffer.length ?? 0) > 0;
  const names = safe([...(consoles?.frameBuffer ?? []), ...(consoles?.text ?? [])].join(', '));
  // Text mode needs no driver: it is the display that the firmware booted.
  if (boot && inText) say(`it is the boot display, and ${names} draws the console on it`, true);
  else if (device.driver !== null) {
    const first = look.names(host.device(device.address, 'graphics')).includes('fb0');
    if (boot && onBuffer) say(`it is the boot display, and ${names} draws the console on it`, true);
    else if (first && onBuffer) say(`${names} draws the console on its fb0`, true);
    else if (boot && consoles === null)
      say('it is the boot display (whether a console draws on it is not to be seen)', false);
  }
  if (boot)
    for (const h of drawing) say(`it is the boot display, and process ${h.pid} (${h.command}) draws on it`, false);
  if (buffers.length > 0) say(`the firmware's frame buffer (${buffers.join(', ')}) lies on it`, onBuffer);
  return uses;
}
