/**
 * A function's config space, as far as grouping needs it: header, PCI Express type, ACS. Pure: the bytes are the
 * caller's and are trusted in nothing; every list in them is walked as the kernel walks it (drivers/pci/pci.c
 * pci_find_capability, pci_find_ext_capability), bounded, and a loop is said and not followed.
 */

/** What a PCI Express function is (include/uapi/linux/pci_regs.h PCI_EXP_TYPE_*). */
export type PcieType =
  | 'endpoint'
  | 'legacy-endpoint'
  | 'root-port'
  | 'upstream-port'
  | 'downstream-port'
  | 'pcie-to-pci-bridge'
  | 'pci-to-pcie-bridge'
  | 'root-complex-endpoint'
  | 'root-complex-event-collector'
  | 'reserved';

const PCIE_TYPES: Readonly<Record<number, PcieType>> = {
  0: 'endpoint',
  1: 'legacy-endpoint',
  4: 'root-port',
  5: 'upstream-port',
  6: 'downstream-port',
  7: 'pcie-to-pci-bridge',
  8: 'pci-to-pcie-bridge',
  9: 'root-complex-endpoint',
  10: 'root-complex-event-collector',
};

/** The two registers of the ACS capability. */
type Acs = { cap: number; ctrl: number };

export type ConfigSpace = {
  /** 0 an endpoint, 1 a bridge, 2 CardBus. */
  headerType: number;
  multifunction: boolean;
  /** Bus numbers of a bridge. */
  bus: { secondary: number; subordinate: number } | null;
  /** Null for a conventional function. */
  pcie: PcieType | null;
  /** Null when the function has no ACS capability. */
  acs: Acs | null;
  /** What is broken in the lists, for people; what was found before the fault stands. */
  fault: string | null;
};

/**
 * Why a config space says nothing; `root` where root would be told more: only its header may be read without
 * CAP_SYS_ADMIN (drivers/pci/pci-sysfs.c pci_read_config).
 */
export type NoConfig = { unmeasured: string; root?: true };

const HEADER = 64;
const CONVENTIONAL = 256;
const EXTENDED = 4096;

const STATUS_CAP_LIST = 0x10;
const CAP_ID_EXP = 0x10;
const EXT_CAP_ID_DSN = 0x0003;
const EXT_CAP_ID_ACS = 0x000d;
/** PCI_FIND_CAP_TTL: more capabilities do not fit behind the header. */
const MAX_CAPS = 48;
/** The kernel's ttl: each extended capability has eight bytes at least. */
const MAX_EXT_CAPS = (EXTENDED - CONVENTIONAL) / 8;

/**
 * Source validation, request and completion redirect, upstream forwarding: what drivers/iommu/iommu.c asks of a port
 * (REQ_ACS_FLAGS).
 */
const ACS_BITS = [
  [0x01, 'SV', 'source validation'],
  [0x04, 'RR', 'request redirect'],
  [0x08, 'CR', 'completion redirect'],
  [0x10, 'UF', 'upstream forwarding'],
] as const;

export type AcsBit = (typeof ACS_BITS)[number][1];

/** What an ACS bit is called in the specification. */
export const acsBitName = (bit: AcsBit): string => ACS_BITS.find(([, b]) => b === bit)?.[2] ?? bit;

/** Reads the bytes of a `config` file (at most 4096). */
export function parseConfig(bytes: Uint8Array): ConfigSpace | NoConfig {
  if (bytes.length < HEADER) return { unmeasured: `only ${bytes.length} bytes of config space were there` };
  const view = new DataView(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, EXTENDED));
  const header = view.getUint8(0x0e);
  // A VF answers ffff for its ids, but not for its header type.
  if (header === 0xff && view.getUint32(0, true) === 0xffffffff)
    return { unmeasured: 'the function does not answer (every byte is ff)' };
  const space: ConfigSpace = {
    headerType: header & 0x7f,
    multifunction: (header & 0x80) !== 0,
    bus: (header & 0x7f) === 1 ? { secondary: view.getUint8(0x19), subordinate: view.getUint8(0x1a) } : null,
    pcie: null,
    acs: null,
    fault: null,
  };
  if ((view.getUint16(0x06, true) & STATUS_CAP_LIST) === 0) return space;
  if (view.byteLength < CONVENTIONAL)
    return {
      unmeasured: `only the first ${view.byteLength} bytes of config space may be read: that needs root`,
      root: true,
    };
  const exp = findCapability(view, CAP_ID_EXP, space);
  if (exp === null || exp + 4 > CONVENTIONAL) return space;
  space.pcie = PCIE_TYPES[(view.getUint16(exp + 2, true) >> 4) & 0xf] ?? 'reserved';
  // Shorter than 4096: the kernel itself has no way to the extended space (pci_cfg_space_size), so it knows no ACS
  // either.
  if (view.byteLength === EXTENDED) space.acs = findAcs(view, space);
  return space;
}

function findCapability(view: DataView, id: number, space: ConfigSpace): number | null {
  const seen = new Set<number>();
  let at = view.getUint8(space.headerType === 2 ? 0x14 : 0x34) & ~3;
  for (let n = 0; n < MAX_CAPS; n++) {
    if (at < HEADER) return null;
    if (seen.has(at)) {
      space.fault = `its capability list runs in a circle at 0x${at.toString(16)}`;
      return null;
    }
    seen.add(at);
    const found = view.getUint8(at);
    if (found === 0xff) return null;
    if (found === id) return at;
    at = view.getUint8(at + 1) & ~3;
  }
  space.fault = `its capability list has more than ${MAX_CAPS} entries`;
  return null;
}

function findAcs(view: DataView, space: ConfigSpace): Acs | null {
  const at = findExtended(view, EXT_CAP_ID_ACS, 8, space);
  return at === null ? null : { cap: view.getUint16(at + 4, true), ctrl: view.getUint16(at + 6, true) };
}

/**
 * The Device Serial Number of a function (PCI Express 6.0, 7.9.3) from all bytes of its `config`, as lspci writes it:
 * `00-1b-21-ff-ff-3c-4d-5e`. Null where there is none, where the extended space may not be read (without root), and for
 * one that says nothing (every bit alike).
 */
export function deviceSerial(bytes: Uint8Array): string | null {
  if (bytes.length < EXTENDED) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, EXTENDED);
  const at = findExtended(view, EXT_CAP_ID_DSN, 12, { fault: null });
  const number = at === null ? 0n : view.getBigUint64(at + 4, true);
  if (number === 0n || number === 2n ** 64n - 1n) return null;
  return (number.toString(16).padStart(16, '0').match(/../g) ?? []).join('-');
}

/** Where the extended capability `id` stands, if `size` bytes of it are there. */
function findExtended(view: DataView, id: number, size: number, space: Pick<ConfigSpace, 'fault'>): number | null {
  const seen = new Set<number>();
  let at = CONVENTIONAL;
  for (let n = 0; n < MAX_EXT_CAPS; n++) {
    if (at < CONVENTIONAL) return null;
    if (seen.has(at)) {
      space.fault = `its extended capability list runs in a circle at 0x${at.toString(16)}`;
      return null;
    }
    seen.add(at);
    const header = view.getUint32(at, true);
    if (header === 0 || header === 0xffffffff) return null;
    if ((header & 0xffff) === id && at + size <= EXTENDED) return at;
    at = (header >>> 20) & ~3;
  }
  return null;
}

/**
 * What a function lacks of the isolation the kernel asks for, by the rules of drivers/pci/pci.c pci_acs_enabled:
 * conventional functions and bridges between PCI and PCI Express never have it, ports must have it, other functions
 * only when there are several in their slot. `bits` are those that could be switched on and are off (a bit that the
 * capability does not list counts as wired on). Quirks of the kernel (drivers/pci/quirks.c pci_dev_acs_enabled) may
 * hold a function isolated all the same: then the group shows it.
 */
export function lackedAcs(
  c: ConfigSpace,
): { kind: 'none' } | { kind: 'conventional' | 'no-capability' } | { kind: 'bits'; bits: AcsBit[] } {
  switch (c.pcie) {
    case null:
    case 'pcie-to-pci-bridge':
    case 'pci-to-pcie-bridge':
    case 'root-complex-event-collector':
      return { kind: 'conventional' };
    case 'root-port':
    case 'downstream-port':
      break;
    case 'reserved':
      return { kind: 'none' };
    default:
      if (!c.multifunction) return { kind: 'none' };
  }
  const { acs } = c;
  if (acs === null) return { kind: 'no-capability' };
  const bits = ACS_BITS.filter(([mask]) => (acs.cap & mask) !== 0 && (acs.ctrl & mask) === 0).map(([, bit]) => bit);
  return bits.length === 0 ? { kind: 'none' } : { kind: 'bits', bits };
}
