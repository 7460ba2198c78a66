/** Config space as a function would answer it: header, a PCI Express capability and ACS where asked for. */
import type { PcieType } from '../../src/pci/configSpace.ts';

export type MockConfig = {
  /** Null for a conventional function. */
  pcie?: Exclude<PcieType, 'reserved'> | null;
  /** Not together with serial. */
  acs?: { cap: number; ctrl: number };
  /** Device Serial Number. */
  serial?: bigint;
  multifunction?: boolean;
  /** Of a bridge. */
  buses?: [secondary: number, subordinate: number];
  /** 64 as without root, 256 as without an extended space. */
  size?: 64 | 256 | 4096;
};

const TYPE_NUMBER: Record<Exclude<PcieType, 'reserved'>, number> = {
  endpoint: 0,
  'legacy-endpoint': 1,
  'root-port': 4,
  'upstream-port': 5,
  'downstream-port': 6,
  'pcie-to-pci-bridge': 7,
  'pci-to-pcie-bridge': 8,
  'root-complex-endpoint': 9,
  'root-complex-event-collector': 10,
};

/** Every bit that the kernel asks for can be switched on, and is. */
export const ACS_ON = { cap: 0x1d, ctrl: 0x1d };

const PM_AT = 0x40;
const EXP_AT = 0x60;
/** Another capability stands before ACS, as advanced error reporting does in life. */
const AER_AT = 0x100;
const ACS_AT = 0x148;
const DSN_AT = 0x140;

export function configBytes(c: MockConfig = {}): Uint8Array {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  view.setUint16(0x00, 0x8086, true);
  view.setUint16(0x06, 0x10, true);
  view.setUint8(0x0e, (c.buses ? 1 : 0) | (c.multifunction ? 0x80 : 0));
  if (c.buses) view.setUint8(0x19, c.buses[0]);
  if (c.buses) view.setUint8(0x1a, c.buses[1]);
  view.setUint8(0x34, PM_AT);
  view.setUint8(PM_AT, 0x01);
  const { pcie = 'endpoint' } = c;
  if (pcie !== null) {
    view.setUint8(PM_AT + 1, EXP_AT);
    view.setUint8(EXP_AT, 0x10);
    view.setUint16(EXP_AT + 2, (TYPE_NUMBER[pcie] << 4) | 2, true);
    const next = c.serial !== undefined ? DSN_AT : c.acs ? ACS_AT : 0;
    view.setUint32(AER_AT, 0x0001 | (2 << 16) | (next << 20), true);
    if (c.serial !== undefined) {
      view.setUint32(DSN_AT, 0x0003 | (1 << 16), true);
      view.setBigUint64(DSN_AT + 4, c.serial, true);
    }
    if (c.acs) {
      view.setUint32(ACS_AT, 0x000d | (1 << 16), true);
      view.setUint16(ACS_AT + 4, c.acs.cap, true);
      view.setUint16(ACS_AT + 6, c.acs.ctrl, true);
    }
  }
  return bytes.subarray(0, c.size ?? (pcie === null ? 256 : 4096));
}
