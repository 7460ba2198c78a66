/**
 * What keeps a device from a guest, the rest of its group aside: the host as a whole, the device itself, what the
 * firmware keeps.
 */
import { denylistAdvice, denylisted } from '../binding/drivers/denylist.ts';
import { guestDriver } from '../binding/drivers/driverChoice.ts';
import type { Guard, Usage } from '../binding/guards.ts';
import { interruptRemapping, unsafeInterrupts } from '../host/interrupts.ts';
import { iommuState } from '../host/iommu.ts';
import { type ReservedRegion, reservedRegions } from '../pci/groups.ts';
import { isBridge, type PciDevice } from '../pci/inventory.ts';
import { isVirtioIommu, noGroupReason } from '../pci/noGroup.ts';
import { lacksVgpuType, vendorVfio, vgpuTypeAdvice } from '../pci/vendorVfio.ts';
import { isVfioDriver } from '../pci/vfio.ts';
import { because, type Cause } from './cause.ts';
import type { Look } from './look.ts';

/** The host as a whole: IOMMU, interrupts. */
export function hostCauses(look: Look, d: PciDevice): Cause[] {
  const { host } = look;
  const state = iommuState(host);
  if (!state.on)
    return [
      because(
        'iommu-off',
        'IOMMU',
        state.reason ?? 'the kernel has no IOMMU groups',
        "'hostdev doctor' prints the line to change",
      ),
    ];
  const causes: Cause[] = [];
  if (d.iommu_group === null) {
    const { cause, change } = noGroupReason(host, d);
    causes.push(
      isVirtioIommu(host)
        ? because('group-at-probe', d.address, 'no driver is bound to it yet', null)
        : because('no-group', d.address, cause, change),
    );
  }
  const remapping = interruptRemapping(host);
  const unsafe = unsafeInterrupts(host);
  if (remapping.state === null) look.missed('interrupt remapping', remapping.why);
  if (remapping.state === 'off')
    causes.push(
      unsafe.length > 0
        ? because(
            'unsafe-interrupts',
            'interrupt remapping',
            `${remapping.why}; ${unsafe.map((u) => u.module).join(', ')} allow_unsafe_interrupts is on`,
            'give devices to trusted guests only',
          )
        : because(
            'interrupt-remapping',
            'interrupt remapping',
            remapping.why,
            "switch it on in the firmware or on the kernel command line: 'hostdev doctor' prints the line",
          ),
    );
  if (look.cmdline.some((w) => w.startsWith('pcie_acs_override=')))
    causes.push(
      because(
        'acs-override',
        `/${host.cmdline}`,
        'groups may be smaller than what hardware keeps apart',
        'take pcie_acs_override out, or trust the guests on both sides',
      ),
    );
  return causes;
}

/** What a process or a service holds, rather than the host itself. */
const HELD: readonly Guard[] = ['in-use', 'rdma'];

/** The device itself; `usage` is null when nobody could look. */
export function deviceCauses(look: Look, d: PciDevice, usage: Usage | null): Cause[] {
  const { host } = look;
  const causes: Cause[] = [];
  if (isBridge(d))
    causes.push(because('not-endpoint', d.address, `class ${d.class} is no endpoint`, 'name a device behind it'));
  if (d.sriov_numvfs !== null && d.sriov_numvfs > 0)
    causes.push(
      because(
        'vfs',
        d.address,
        `it has ${d.sriov_numvfs} VFs`,
        `pass the VFs through, or remove them first: echo 0 > ${host.absolute(host.device(d.address, 'sriov_numvfs'))}`,
      ),
    );
  const family = denylisted(d.vendor_id ?? '', d.product_id ?? '')?.family;
  if (
    family !== undefined &&
    !denylistOff(look) &&
    look.quiet('variant driver', () => guestDriver(host, d)) === 'vfio-pci'
  )
    causes.push(because('denylist', d.address, family, denylistAdvice()));
  const own = look.quiet('vGPU type', () => vendorVfio(host, d));
  if (own !== null)
    causes.push(because('vendor-vfio', d.address, `${own.driver} is its VFIO provider`, "take it with managed='no'"));
  if (own?.ready === false)
    causes.push(
      because(
        'vendor-vfio-late',
        d.address,
        `it shows no vfio-dev on ${own.driver}`,
        `see dmesg for what ${own.driver} says`,
      ),
    );
  if (own !== null && lacksVgpuType(own))
    causes.push(because('vgpu-type', d.address, 'its current_vgpu_type is 0', vgpuTypeAdvice(host, d.address, own)));
  const vfio = isVfioDriver(host, d.address, d.driver);
  if (usage === null) return causes;
  for (const u of usage.unmeasured) look.missed(d.address, u);
  for (const { guard, reason } of usage.uses) {
    const change = HELD.includes(guard)
      ? vfio
        ? 'it belongs to a running guest: stop that first'
        : 'end that process'
      : 'let the host do without it first; bind refuses until then (or --allow names the guard)';
    if (guard !== 'vfs') causes.push(because(HELD.includes(guard) ? 'held' : 'host-use', d.address, reason, change));
  }
  return causes;
}

const denylistOff = (look: Look): boolean =>
  look
    .quiet('disable_denylist', () => look.host.read(look.host.module('vfio_pci', 'parameters/disable_denylist')))
    ?.trim() === 'Y';

/**
 * Regions that the firmware keeps: `direct` forbids every other use of the group, `direct-relaxable`, `msi` and
 * `reserved` do not.
 */
export function reserved(look: Look, d: PciDevice): { regions: ReservedRegion[]; causes: Cause[] } {
  if (d.iommu_group === null) return { regions: [], causes: [] };
  const regions =
    look.quiet(`IOMMU group ${d.iommu_group}`, () => reservedRegions(look.host, d.iommu_group ?? 0)) ?? [];
  const causes = regions
    .filter((r) => r.type === 'direct')
    .map((r) =>
      because(
        'reserved-direct',
        `IOMMU group ${d.iommu_group}`,
        `${r.start}-${r.end} must stay mapped one to one`,
        'switch off in the firmware what shares memory with the device (HPE "Shared Memory", USB legacy support), or take another slot',
      ),
    );
  return { regions, causes };
}
