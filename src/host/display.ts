/**
 * Who draws on a display: consoles (drivers/tty/vt), and the firmware's frame buffer in proc/iomem, which a driverless
 * GPU still shows.
 */
import type { Host } from './host.ts';
import type { Look, Tables } from './look.ts';

/**
 * Consoles that draw now, e.g. "vtcon1": on a frame buffer, or in the text mode of the display that the firmware
 * booted.
 */
export type Consoles = { frameBuffer: string[]; text: string[] };

/**
 * Null where the kernel shows no consoles at all. Names by drivers/video/fbdev/core/fbcon.c and
 * drivers/video/console/vgacon.c ("dummy device" draws nothing).
 */
export function drawingConsoles(look: Look): Consoles | null {
  const { host } = look;
  const names = look.names(host.classLink('vtconsole'));
  if (names.length === 0) return null;
  const bound = names.filter((c) => look.attribute(host.classLink('vtconsole', `${c}/bind`))?.trim() === '1');
  const called = (re: RegExp): string[] =>
    bound.filter((c) => re.test(look.attribute(host.classLink('vtconsole', `${c}/name`)) ?? ''));
  return { frameBuffer: called(/frame buffer/), text: called(/VGA|EGA|MDA|CGA/) };
}

/**
 * Names of resources that are a frame buffer of the firmware's: drivers/firmware/sysfb_simplefb.c,
 * drivers/video/fbdev/{efifb,simplefb,vesafb}.c, drivers/gpu/drm/sysfb.
 */
const FRAME_BUFFER =
  /^(BOOTFB|efifb|simplefb|vesafb|(simple|efi|vesa)-framebuffer(\.\d+)?|(simple|efi|vesa|of|coreboot)drm(\.\d+)?)$/;

/** A BAR is called after its function (drivers/pci/probe.c). */
const FUNCTION = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/;

/** A frame buffer of the firmware's and the function on whose BAR it lies. */
export type BootFrameBuffer = { name: string; address: string };

/**
 * The frame buffers of the firmware that lie on functions' BARs. Told by nesting or by overlap: BOOTFB may be inserted
 * above a small BAR, and a process without rights reads every address as zero. None where proc/iomem cannot be read:
 * who must know asks for its lines too.
 */
export function bootFrameBuffers(look: Look): readonly BootFrameBuffer[] {
  return look.tables.once(readFrameBuffers);
}

function readFrameBuffers(host: Host, tables: Tables): BootFrameBuffer[] {
  const lines = (tables.lines(host.iomem).value ?? []).flatMap((line) => {
    const m = /^( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.{1,128})$/.exec(line);
    if (!m) return [];
    const [start, end] = [BigInt(`0x${m[2]}`), BigInt(`0x${m[3]}`)];
    return [{ depth: m[1]?.length ?? 0, start, end, name: m[4] ?? '' }];
  });
  const bars = lines.filter((l) => FUNCTION.test(l.name));
  const found = new Map<string, BootFrameBuffer>();
  const above: typeof lines = [];
  for (const l of lines) {
    above.length = Math.min(above.length, above.findIndex((a) => a.depth >= l.depth) >>> 0);
    if (FRAME_BUFFER.test(l.name)) {
      const over = bars.filter((b) => l.end > 0n && l.start <= b.end && b.start <= l.end);
      for (const { name: address } of [...above.filter((a) => FUNCTION.test(a.name)), ...over])
        found.set(`${l.name} ${address}`, { name: l.name, address });
    }
    above.push(l);
  }
  return [...found.values()];
}
