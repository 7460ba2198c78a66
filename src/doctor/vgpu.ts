/** vGPU setups: VFs that are vGPUs on their vendor's driver only, and what keeps a guest from having one. */
import type { PciDevice } from '../pci/inventory.ts';
import { lacksVgpuType, providerOfVfs, untypedText, vendorVfio, vgpuTypeAdvice } from '../pci/vendorVfio.ts';
import { commandFix } from './fix.ts';
import type { Look } from './look.ts';
import { type Draft, finding } from './table.ts';
import { addresses } from './words.ts';

/** How many VFs a command names. */
const NAMED = 8;

export function checkVgpus(look: Look): Draft[] {
  const { devices } = look.inventory;
  const byPf = new Map<string, PciDevice[]>();
  for (const d of devices) if (d.parent_addr !== null) byPf.set(d.parent_addr, [...(byPf.get(d.parent_addr) ?? []), d]);
  return devices.flatMap((pf) => {
    const vfs = byPf.get(pf.address) ?? [];
    // A display's: a NIC's VFs are not asked one by one.
    if (vfs.length === 0 || !pf.class?.startsWith('03')) return [];
    const provider = look.quiet(pf.address, () => providerOfVfs(look.host, pf, vfs));
    return provider === null ? [] : [...offDriver(vfs, provider), ...untyped(look, pf, vfs)];
  });
}

function offDriver(vfs: readonly PciDevice[], provider: string): Draft[] {
  const off = vfs.filter((d) => d.driver !== provider);
  if (off.length === 0) return [];
  const on = [...new Set(off.map((d) => d.driver ?? 'no driver'))].join(', ');
  return [
    finding(
      'vgpu-off-driver',
      addresses(off),
      `on ${on}: these VFs are vGPUs, which guests can have on ${provider} only, with managed='no'`,
      off
        .slice(0, NAMED)
        .map((d) => commandFix(`hostdev unbind --to-host ${d.address}`, 'no guest may have it meanwhile')),
    ),
  ];
}

function untyped(look: Look, pf: PciDevice, vfs: readonly PciDevice[]): Draft[] {
  const own = vfs.flatMap((d) => {
    const found = look.quiet(d.address, () => vendorVfio(look.host, d));
    return found !== null && lacksVgpuType(found) ? [{ d, found }] : [];
  });
  const [first] = own;
  if (first === undefined) return [];
  const type = first.found.vgpu?.creatable[0];
  const path = look.host.absolute(look.host.device(first.d.address, 'nvidia/current_vgpu_type'));
  const advice = `${vgpuTypeAdvice(look.host, first.d.address, first.found)}, and so for each VF that a guest is to have; a reboot clears it`;
  return [
    finding(
      'vgpu-untyped',
      addresses(own.map((o) => o.d)),
      `each of these ${own.length} of ${vfs.length} VFs of ${pf.address} ${untypedText(first.found)}`,
      [
        type === undefined
          ? commandFix(`cat ${path.replace(/[^/]*$/, 'creatable_vgpu_types')}`, advice)
          : commandFix(`echo ${type.id} > ${path}`, advice),
      ],
    ),
  ];
}
