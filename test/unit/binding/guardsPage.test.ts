/** The guards page says what the table of guards says; UPDATE_DOCS=1 writes it anew. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { expect, test } from 'vitest';
import { type Asker, GUARDS, type Guard, isAllowable, judge, refusalHint } from '../../../src/binding/guards.ts';
import type { PciDevice } from '../../../src/pci/inventory.ts';
import { pageTable } from '../../mock/pages.ts';

const MADE =
  '<!-- Made from src/binding/guards.ts by test/unit/binding/guardsPage.test.ts; to change it: UPDATE_DOCS=1 npx vitest run guardsPage -->';
const ASKERS: Asker[] = ['bind', 'unbind', 'hook', 'managed'];
const rows = Object.entries(GUARDS);

function page(): string {
  const head = [
    'Guard',
    'What it stands for',
    '`bind`',
    '`unbind`',
    "hook, `managed='no'`",
    "hook, `managed='yes'`",
    'Allowance',
    'The way out',
  ];
  const cells = rows.map(([name, g]) => [
    `\`${name}\``,
    g.text,
    ...ASKERS.map((l) => g.effects[l]),
    isAllowable(name) ? `\`--allow=${name}\`` : 'none',
    g.hint,
  ]);
  return [
    `# Guards\n\n${MADE}\n\n`,
    'Before a device leaves its driver, hostdev looks at what the host uses it for. A guard that finds something refuses, with exit\n',
    'code 5, and names what it found. Each is lifted by its own name only: `--allow=<guard>` for one command, `[[allow]]` with\n',
    '`device`, `guard` and `domain` in hostdev.toml for the hook. There is no option that lifts all.\n\n',
    pageTable(head, cells),
    "\nWith `managed='yes'` libvirt moves the device itself and would do so without hostdev: there the hook refuses only where the host\n",
    'would be lost, or another guest. Vital are: a disk that `/`, swap, or a file system mounted at or in `/usr`, `/boot`,\n',
    '`/efi`, `/var`, `/etc` or `/nix` is on, through whatever layers, or of which somebody has hold and nothing shows why; an interface that the default route or a disk over the network needs,\n',
    'through whatever is above it; a display on which a console draws; the console of the kernel; memory of the host; a PF whose VF a guest has. The rest is a warning in the log of the\n',
    'hook.\n\n',
    'What each guard looks at:\n\n',
    '- `disk`: the block devices below the function and all that is stacked on them by `holders/`, `slaves/`, partitions, NVMe multipath\n',
    '  heads and loop devices; `proc/self/mountinfo` by device number, and by source where a file system has a number of its own\n',
    '  (btrfs); `proc/swaps`, files too. Where these show nothing, the disk is opened with `O_EXCL` for a moment: that fails for what\n',
    '  ZFS, a btrfs of several disks, another mount namespace or a careful process has for itself.\n',
    '- `network`: default routes and addresses that are not link-local, of IPv4 and IPv6; bridges, bonds, Open vSwitch, VLANs and macvtap\n',
    '  above it, and what these have; an interface that was given to another network namespace.\n',
    '- `display`: a console that draws on the boot display or on its `fb0`, a process that holds its DRM nodes, and the frame buffer of\n',
    '  the firmware (BOOTFB, efifb, simplefb) in `proc/iomem`, which a GPU without a driver has too.\n',
    '- `console`: the consoles that the kernel writes to (`sys/class/tty/console/active`), on a serial card, behind a USB controller or of\n',
    '  virtio. `memory`: CXL regions that are committed and have the memory of the device in them.\n',
    '- `vendor-vfio`, `vgpu-type`: `vfio-dev/` and `nvidia/current_vgpu_type` of a device on a driver that is no VFIO driver by its name. Plain `bind`\n',
    '  leaves such a device where it is, with and without an allowance (nothing to do, exit 0), and says which `managed` a guest takes it with\n',
    '  and that a vGPU type is missing; `bind --driver vfio-pci` is refused, and so is plain `bind` until its driver has made the VFIO device.\n',
    '- `mdev`, `vdpa`: what the driver has handed on. `rdma`, `in-use`: every process with a node of the device open, by pid and command;\n',
    '  the nodes are those of VFIO, disks, NVMe, DRM, sound, RDMA, nvidia, USB and input, and of every other character device below it.\n',
    '- `vfs`: VFs are in use when a guest or the admin has them in the books, when a process holds one, or when one of the guards above\n',
    '  finds something on one.\n',
    '- `not-measured`: a table of the kernel that a guard needs is missing or unreadable. It refuses on the machine itself, not below\n',
    '  another `--root`.\n',
  ].join('');
}

test('docs/reference/guards.md is up to date', () => {
  const file = 'docs/reference/guards.md';
  if (process.env.UPDATE_DOCS) {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, page());
  }
  expect(readFileSync(file, 'utf8')).toBe(page());
});

test.each(rows)('%s: a line for people and a way out', (name, g) => {
  expect(name).toMatch(/^[a-z]+(-[a-z]+)*$/);
  expect(g.text).toMatch(/^[a-zA-Z].*[^.]$/);
  expect(g.hint).toMatch(/^[A-Z].*\.$/);
  // A device that stays on its own driver is no move to refuse.
  expect(g.effects.bind).toBe({ 'vendor-vfio': 'refuses another driver', 'vgpu-type': 'warns' }[name] ?? 'refuses');
});

test.each(rows)('%s: does for each asker what its row says', (name, g) => {
  const device = { address: '0000:05:00.0', class: 'ff0000' } as PciDevice;
  for (const asker of ASKERS) {
    for (const vital of [true, false]) {
      const usage = { uses: [{ guard: name as Guard, reason: 'it is', vital }], unmeasured: [] };
      const { refusals, warnings } = judge(
        { device, usage, target: null, denylistOff: false, real: true, asker },
        () => false,
      );
      const effect = g.effects[asker];
      const refuses = effect === 'refuses if vital' ? vital : effect.startsWith('refuses');
      expect([refusals.length, warnings.length], asker).toEqual([refuses ? 1 : 0, refuses || effect === '-' ? 0 : 1]);
    }
  }
});

test('the hint names every allowance that is needed, and none where one would not do', () => {
  const refusal = (guard: Guard, firm = false) =>
    ({ guard, address: '0000:05:00.0', reason: 'it is', firm, asker: 'bind' }) as const;
  expect(refusalHint([refusal('disk'), refusal('in-use'), refusal('disk')])).toMatch(
    /: --allow=disk --allow=in-use\.$/,
  );
  expect(refusalHint([refusal('disk'), refusal('denylist')])).toMatch(/No allowance lifts this\.$/);
  expect(refusalHint([refusal('vfs', true)])).toMatch(/No allowance lifts this\.$/);
  // A copy of a refusal is as firm as the refusal.
  expect(refusalHint([{ ...refusal('vfs', true) }])).toMatch(/No allowance lifts this\.$/);
});

test.each<[Asker, RegExp]>([
  ['bind', /: --allow=disk\.$/],
  ['unbind', /: --allow=disk\.$/],
  ['hook', /: in hostdev\.toml an \[\[allow\]\] with device = "0000:05:00\.0", guard = "disk", domain = [^-]*$/],
  ['managed', /: in hostdev\.toml an \[\[allow\]\] with [^-]*$/],
])('the hint of %s names a way that its reader has', (asker, says) => {
  const usage = { uses: [{ guard: 'disk' as const, reason: 'it is', vital: true }], unmeasured: [] };
  const device = { address: '0000:05:00.0', class: 'ff0000' } as PciDevice;
  const judged = { device, usage, target: null, denylistOff: false, real: true, asker };
  expect(refusalHint(judge(judged, () => false).refusals)).toMatch(says);
});

test('a bridge is refused, whatever is allowed: VFIO takes none', () => {
  const device = { address: '0000:05:00.0', class: '060400', bridge: true } as PciDevice;
  const judged = { device, usage: { uses: [], unmeasured: [] }, target: null, denylistOff: false, real: true };
  const { refusals } = judge({ ...judged, asker: 'bind' }, () => true);
  expect(refusals).toMatchObject([{ guard: 'bridge' }]);
  expect(refusalHint(refusals)).toMatch(/No allowance lifts this\.$/);
});
