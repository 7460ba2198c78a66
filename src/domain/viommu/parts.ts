/** A domain's vIOMMUs as the rules see them: what was written, and what libvirt makes of it. */
import type { Element } from '@xmldom/xmldom';
import { type DomainFacts, isQ35, isQemu, isX86, type Part } from '../domainFacts.ts';
import type { Fault, Target } from '../rules/rules.ts';
import { below, parseVersion, type Version } from '../version.ts';
import { child } from '../xml/dom.ts';
import {
  AW_BITS_48_QEMU,
  FILLED_IN_FROM,
  isViommuModel,
  MAX_VCPUS_WITHOUT_EIM,
  type ViommuModel,
  XTSUP_FROM,
} from './models.ts';

/** One `<iommu>` as the rules see it; attributes only where they are well-formed. */
export type Iommu = { part: Part; model: ViommuModel | null; modelText: string; driver: Record<string, string> };

/** An `<iommu>` of a known model. */
export type KnownIommu = Iommu & { model: ViommuModel };

/** All `<iommu>` of a domain. */
export function iommusOf(d: DomainFacts): Iommu[] {
  return d.iommus.map((part) => {
    const modelText = part.element.getAttribute('model') ?? '';
    const e = child(part.element, 'driver');
    const driver: Record<string, string> = {};
    for (let i = 0; e && i < e.attributes.length; i += 1) {
      const a = e.attributes.item(i);
      if (a && a.namespaceURI === null) driver[a.name] = a.value;
    }
    return { part, model: isViommuModel(modelText) ? modelText : null, modelText, driver };
  });
}

/** Those whose model libvirt knows on some version. */
export const known = (d: DomainFacts): KnownIommu[] => iommusOf(d).filter((i): i is KnownIommu => i.model !== null);

/** A check of every `<iommu>` whose model is known. */
export const each =
  (look: (i: KnownIommu, t: Target) => string | null | undefined | false) =>
  (t: Target): Fault[] =>
    known(t.domain).flatMap((i) => {
      const cause = look(i, t);
      return cause ? [{ part: i.part, cause }] : [];
    });

/** `<granule>` of its driver. */
export function granuleOf({ element }: Part): Element | undefined {
  const driver = child(element, 'driver');
  return driver && child(driver, 'granule');
}

/** The type of its address in the guest; null without one. */
export const guestAddress = (i: Iommu): string | null => child(i.part.element, 'address')?.getAttribute('type') ?? null;

/** libvirt writes what more than 255 vCPUs need into the definition when the XML is silent. */
export const filledIn = (t: Target): boolean => isQemu(t.domain) && !below(t.versions.libvirt, FILLED_IN_FROM);

/** More vCPUs than an APIC id of 8 bits can name. */
export const manyVcpus = (d: DomainFacts): boolean => isQemu(d) && isX86(d) && d.vcpus > MAX_VCPUS_WITHOUT_EIM;

type Switches = Record<'intremap' | 'eim' | 'xtsup', string | undefined>;

/**
 * What libvirt's validators see, after it has filled in what more than 255 vCPUs need (qemu_postparse.c
 * qemuDomainIOMMUDefPostParse).
 */
export function effective(i: KnownIommu, t: Target): Switches {
  const { intremap, eim, xtsup } = i.driver;
  const said = { intremap, eim, xtsup };
  if (!filledIn(t) || !manyVcpus(t.domain) || !isQ35(t.domain)) return said;
  if (i.model === 'intel') return { intremap: intremap ?? 'on', eim: eim ?? 'on', xtsup };
  const amd = i.model === 'amd' && !below(t.versions.libvirt, XTSUP_FROM);
  return amd ? { intremap: intremap ?? 'on', eim, xtsup: xtsup ?? 'on' } : said;
}

/** The version that a machine type is named after, or null. */
const machineVersion = (machine: string | null): Version | null =>
  parseVersion(/^(?:pc-q35|pc-i440fx|virt)-(\d+\.\d+(?:\.\d+)?)$/.exec(machine ?? '')?.[1] ?? '');

/**
 * The default width of intel-iommu in a domain: by its machine type (QEMU's compatibility properties), else by QEMU.
 */
function defaultIntelBits(d: DomainFacts, qemu: Version | null): number | null {
  const v = machineVersion(d.machine) ?? qemu;
  return v === null ? null : v < AW_BITS_48_QEMU ? 39 : 48;
}

/** The width of I/O addresses that a domain's intel-iommu will have; null is not known, or there is none. */
export function intelAddressBits({ domain, versions }: Target): number | null {
  const intel = known(domain).find((i) => i.model === 'intel');
  if (!intel) return null;
  const given = Number(intel.driver.aw_bits ?? 0);
  return given > 0 ? given : defaultIntelBits(domain, versions.qemu);
}
