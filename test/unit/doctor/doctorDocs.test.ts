/** The page of findings says what src/doctor/table.ts says; UPDATE_DOCS=1 writes it anew. */
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { CAUSES, FINDINGS } from '../../../src/doctor/table.ts';

const PAGE = 'docs/reference/doctor.md';

function table(head: string[], rows: string[][]): string {
  const text = [head, ...rows].map((r) => r.map((c) => c.replaceAll('|', '\\|').replaceAll('<', '\\<')));
  const width = head.map((_, i) => Math.max(3, ...text.map((r) => r[i]?.length ?? 0)));
  const lines = text.map((r) => r.map((c, i) => c.padEnd(width[i] ?? 0)));
  return [...lines.slice(0, 1), width.map((w) => '-'.repeat(w)), ...lines.slice(1)]
    .map((r) => `| ${r.join(' | ')} |\n`)
    .join('');
}

const page = (): string =>
  [
    '# doctor and group why\n\n',
    '<!-- Made from src/doctor/table.ts by test/unit/doctor/doctorDocs.test.ts; to change it: UPDATE_DOCS=1 npx vitest run doctorDocs -->\n\n',
    '`hostdev doctor` looks at the host and changes nothing. It exits with 3 when there is a finding of severity error, else with\n',
    '0. With `-j` it prints `{"schema":1,"findings":[{"id","severity","object","cause","fix":[{"tool","where","line","present","after"}]}],\n',
    '"not_measured":[{"object","reason"}]}`. `where` is `file:line` for a line that is to be replaced by `line`, and only the file for\n',
    'a line that is to be added; `present` says whether this host has the tool; `after` is what makes it take effect. What is\n',
    'missing or may not be read is in `not_measured`: it is neither well nor ill. Run it as root. Of a script that moves devices all\n',
    'of that work is taken out: `where` is then `file:first-last`, and what else the script does stays and still runs.\n\n',
    'The kernel command line is changed where this host has it. The first of these that is there gives the only fix: ostree\n',
    '(`rpm-ostree kargs`; with bootc alone `kargs.d` of the image), NixOS (`boot.kernelParams`), Proxmox (`/etc/kernel/cmdline`\n',
    'or GRUB, then `proxmox-boot-tool refresh`), kernelstub (Pop!_OS), limine, sdbootutil (openSUSE), syslinux (Unraid),\n',
    'update-extlinux (Alpine), u-boot-menu and extlinux, Raspberry Pi (`cmdline.txt`), Armbian, flash-kernel, zipl, rEFInd. Else\n',
    'GRUB, with the command of the distribution (`update-grub`, `grubby`, `grub2-mkconfig`, `grub-mkconfig`,\n',
    '`transactional-update grub.cfg`), or systemd-boot with kernel-install. What several findings want of it is one line, which each\n',
    'of them has: `after` names them. Changes to modules end with what makes the initramfs here (`update-initramfs`, `dracut`,\n',
    '`mkinitcpio`, `mkinitfs`, booster; none on Unraid). Beside these stands the same as user-data, for machines that cloud-init\n',
    "makes like this one, and in Juju's form (`cloudinit-userdata`), whose commands do nothing in a container:\n",
    'see [the guide](../guide/from-the-charm-guide.md) for hosts that were made by the charm guide.\n\n',
    table(
      ['Finding', 'Severity', 'What it means'],
      Object.entries(FINDINGS).map(([id, f]) => [`\`${id}\``, f.severity, f.text]),
    ),
    '\n`hostdev group why DEV` says why the IOMMU group of a device is as it is and what keeps the device from a guest. It exits\n',
    'with 3 when a cause blocks, else with 0. With `-j` it prints `{"schema":1,"why":{"address","iommu_group","assignable",\n',
    '"causes":[{"id","blocks","object","cause","change"}],"device":{"class","driver","netdevs","disks","displays"},\n',
    '"peers":[{"address","class","driver","blocks","netdevs","disks","displays"}],\n',
    '"reset":{"methods","scope"},"reserved_regions":[{"start","end","type"}],"not_measured":[{"object","reason"}]}}`. The reasons for a\n',
    'group lie in config space, which is read for groups of several devices only, and needs root.\n\n',
    table(
      ['Cause', 'Blocks', 'What it means'],
      Object.entries(CAUSES).map(([id, c]) => [`\`${id}\``, c.blocks ? 'yes' : 'no', c.text]),
    ),
  ].join('');

test('the page is up to date', () => {
  if (process.env.UPDATE_DOCS) writeFileSync(PAGE, page());
  expect(readFileSync(PAGE, 'utf8')).toBe(page());
});

describe('the table', () => {
  test.each([...Object.entries(FINDINGS), ...Object.entries(CAUSES)])('%s is a whole sentence', (id, { text }) => {
    expect(id).toMatch(/^[a-z]+(?:-[a-z]+)*$/);
    expect(text).toMatch(/^[A-Za-z].*\.$/);
  });
});
