/**
 * What libvirt defines and QEMU refuses, or the guest does not get as meant. Checked against QEMU 7.2, 10.0 and 11.1.
 */

import type { Rule } from '../rules/rules.ts';
import { UINT8, UINT32 } from '../rules/values.ts';
import { below, formatVersion, sinceQemu, version } from '../version.ts';
import { child } from '../xml/dom.ts';
import { EIM_TCG_QEMU, SEVERAL_FROM, SMMU_PER_BUS_QEMU, VIRTIO_VFIO_QEMU, XTSUP_FROM } from './models.ts';
import { each, effective, iommusOf, known, manyVcpus } from './parts.ts';
import { usesVfio } from './suggest.ts';

const VALIDATE = 'libvirt conf/domain_validate.c';
const QEMU_VALIDATE = 'libvirt qemu/qemu_validate.c';

export const VIOMMU_START_RULES: readonly Rule[] = [
  {
    id: 'viommu-several',
    stage: 'start',
    holds: 'where there are several <iommu>, all are smmuv3, each with a pciBus of its own',
    since: `libvirt ${formatVersion(SEVERAL_FROM)}`,
    source: `${VALIDATE} virDomainDefIOMMUValidate, which reports this and forgets to refuse it (measured: 12.8.0 defines two intel)`,
    fix: 'leave one, or give each smmuv3 its pciBus',
    check: ({ domain, versions }) => {
      const all = iommusOf(domain);
      if (all.length < 2 || below(versions.libvirt, SEVERAL_FROM)) return [];
      const odd = all.find((i) => i.model !== 'smmuv3' || i.driver.pciBus === undefined);
      if (odd)
        return [
          {
            part: odd.part,
            cause: `beside others, it is ${odd.modelText} ${odd.model === 'smmuv3' ? 'without pciBus' : ''}`.trim(),
          },
        ];
      const buses = all.map((i) => Number(i.driver.pciBus));
      const twice = all.find((_, n) => buses.indexOf(buses[n] ?? -1) !== n);
      return twice ? [{ part: twice.part, cause: `pciBus ${twice.driver.pciBus} is there twice` }] : [];
    },
  },
  {
    id: 'vcpus-x2apic',
    stage: 'advice',
    holds: "more than 255 vCPUs get interrupts from devices only with intel's eim='on' or amd's xtsup='on'",
    since: `libvirt ${formatVersion(XTSUP_FROM)} no longer refuses it (measured: 12.8.0)`,
    source: `${QEMU_VALIDATE} qemuValidateDomainVCpuTopology`,
    fix: "use intel with eim='on' or amd with xtsup='on'",
    check: (t) => {
      if (!manyVcpus(t.domain) || below(t.versions.libvirt, XTSUP_FROM)) return [];
      const first = known(t.domain)[0];
      if (!first) return [];
      const fine =
        first.model === 'intel'
          ? effective(first, t).eim === 'on'
          : first.model === 'amd' && first.driver.xtsup !== 'off';
      return fine ? [] : [{ part: first.part, cause: `${t.domain.vcpus} vCPUs with ${first.model} and no x2APIC` }];
    },
  },
  {
    id: 'intel-caching-mode',
    stage: 'assign',
    holds: "intel needs caching_mode='on' where the domain takes devices of the host",
    since: null,
    source:
      'QEMU hw/i386/intel_iommu.c vtd_iommu_notify_flag_changed (We need to set caching-mode=on for intel-iommu to enable device assignment)',
    fix: "add caching_mode='on' to its <driver>",
    check: each(
      (i, { domain }) =>
        i.model === 'intel' &&
        usesVfio(domain) &&
        i.driver.caching_mode !== 'on' &&
        `the domain takes ${domain.vfioDevices + domain.mdevs} device(s) of the host without it`,
    ),
  },
  {
    id: 'smmuv3-vfio',
    stage: 'assign',
    holds: "smmuv3 without accel='on' takes no devices of the host",
    since: null,
    source:
      'QEMU hw/arm/smmuv3.c smmuv3_notify_flag_changed (requires iommu MAP notifier which is not currently supported)',
    fix: "use virtio, or accel='on' where host and versions have it",
    check: each(
      (i, { domain }) =>
        i.model === 'smmuv3' && usesVfio(domain) && i.driver.accel !== 'on' && 'the domain takes devices of the host',
    ),
  },
  {
    id: 'amd-vfio',
    stage: 'assign',
    holds: 'amd takes no devices of the host',
    since: null,
    source:
      'QEMU hw/i386/amd_iommu.c amdvi_iommu_notify_flag_changed: needs the property dma-remap, which libvirt does not set (12.8.0)',
    fix: "use intel with caching_mode='on', or virtio",
    check: each((i, { domain }) => i.model === 'amd' && usesVfio(domain) && 'the domain takes devices of the host'),
  },
  {
    id: 'virtio-vfio',
    stage: 'advice',
    holds: `virtio with devices of the host needs QEMU ${formatVersion(VIRTIO_VFIO_QEMU)}`,
    since: sinceQemu(VIRTIO_VFIO_QEMU),
    source: 'QEMU hw/virtio/virtio-iommu.c: aw-bits and granule of 9.0, reserved regions of the host of 8.2',
    fix: "use intel with caching_mode='on', or a newer QEMU",
    check: each(
      (i, { domain, versions }) =>
        i.model === 'virtio' &&
        usesVfio(domain) &&
        below(versions.qemu, VIRTIO_VFIO_QEMU) &&
        'the guest may use I/O addresses that the host cannot map',
    ),
  },
  {
    id: 'intel-aw-bits',
    stage: 'start',
    holds: "intel's aw_bits is 39 or 48",
    since: null,
    source: 'QEMU hw/i386/intel_iommu.c vtd_decide_config (Supported values for aw-bits are: 39, 48)',
    fix: 'use 48, or 39 where the host has no more',
    check: each((i) => {
      const bits = Number(i.driver.aw_bits ?? 0);
      return (
        i.model === 'intel' &&
        bits !== 0 &&
        UINT8.test(i.driver.aw_bits ?? '') &&
        bits !== 39 &&
        bits !== 48 &&
        `aw_bits is ${bits}`
      );
    }),
  },
  {
    id: 'intel-eim-tcg',
    stage: 'start',
    holds: `eim='on' needs KVM before QEMU ${formatVersion(EIM_TCG_QEMU)}`,
    since: sinceQemu(EIM_TCG_QEMU),
    source: 'QEMU hw/i386/intel_iommu.c vtd_decide_config (eim=on requires accel=kvm,kernel-irqchip=split)',
    fix: "use type='kvm', or leave eim out",
    check: each(
      (i, { domain, versions }) =>
        i.model === 'intel' &&
        domain.type === 'qemu' &&
        i.driver.eim === 'on' &&
        below(versions.qemu, EIM_TCG_QEMU) &&
        "the domain is of type 'qemu'",
    ),
  },
  {
    id: 'smmuv3-pcibus',
    stage: 'start',
    holds: `pciBus needs QEMU ${formatVersion(SMMU_PER_BUS_QEMU)} and is the index of a PCI controller of the domain`,
    since: sinceQemu(SMMU_PER_BUS_QEMU),
    source: 'QEMU hw/arm/smmuv3.c primary-bus; libvirt docs/formatdomain: pciBus',
    fix: 'name the index of a pcie-root or pcie-expander-bus controller',
    check: each((i, { domain, versions }) => {
      const bus = i.driver.pciBus;
      if (i.model !== 'smmuv3' || bus === undefined || !UINT32.test(bus) || below(versions.libvirt, SEVERAL_FROM))
        return null;
      if (below(versions.qemu, SMMU_PER_BUS_QEMU)) return 'there is a pciBus';
      const there = domain.controllers.some(
        (c) =>
          c.element.getAttribute('type') === 'pci' && Number(c.element.getAttribute('index') ?? -1) === Number(bus),
      );
      return !there && Number(bus) !== 0 && `there is no PCI controller of index ${Number(bus)}`;
    }),
  },
  {
    id: 'virtio-ignored',
    stage: 'advice',
    holds: 'xtsup and passthrough do nothing for virtio',
    since: 'libvirt 11.5.0',
    source: `${VALIDATE} virDomainIOMMUDefValidate does not look (measured: 12.8.0)`,
    fix: 'leave them out',
    check: each((i, { versions }) => {
      const names = ['xtsup', 'passthrough'].filter((n) => i.driver[n] !== undefined);
      return (
        i.model === 'virtio' &&
        !below(versions.libvirt, version('11.5.0')) &&
        names.length > 0 &&
        `${names.join(' and ')} given`
      );
    }),
  },
  {
    id: 'viommu-virtio-devices',
    stage: 'advice',
    holds: "virtio devices go through the vIOMMU only with <driver iommu='on'/>",
    since: null,
    source: 'libvirt docs/formatdomain: Virtio-related options',
    fix: "add iommu='on' to their <driver>",
    check: ({ domain }) => {
      if (domain.iommus.length === 0) return [];
      const virtio = [
        ...domain.interfaces.filter((p) => child(p.element, 'model')?.getAttribute('type')?.startsWith('virtio')),
        ...domain.disks.filter((p) => child(p.element, 'target')?.getAttribute('bus') === 'virtio'),
      ].filter((p) => child(p.element, 'driver')?.getAttribute('iommu') !== 'on');
      return virtio.slice(0, 4).map((part) => ({ part, cause: 'it stays outside the vIOMMU' }));
    },
  },
];
