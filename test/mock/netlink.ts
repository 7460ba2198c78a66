/** RTM_NEWLINK as bytes, the way net/core/rtnetlink.c writes it. */
import { endianness } from 'node:os';

const little = endianness() === 'LE';

/** 32-bit numbers as they lie in memory. */
export function numbers(...values: number[]): Buffer {
  const b = Buffer.alloc(values.length * 4);
  for (const [i, v] of values.entries()) little ? b.writeUInt32LE(v >>> 0, i * 4) : b.writeUInt32BE(v >>> 0, i * 4);
  return b;
}

function short(value: number): Buffer {
  const b = Buffer.alloc(2);
  if (little) b.writeUInt16LE(value);
  else b.writeUInt16BE(value);
  return b;
}

/** One attribute, filled up to four bytes; `size` another length than it has. */
export const attribute = (type: number, body: Buffer, size = body.length + 4): Buffer =>
  Buffer.concat([short(size), short(type), body, Buffer.alloc((4 - (body.length % 4)) % 4)]);

export type MadeVf = {
  /** Hex digits. */
  mac?: string;
  vlan?: [vlan: number, qos: number];
  spoofchk?: number;
  trust?: number;
  linkState?: number;
  rate?: [min: number, max: number];
};

/** IFLA_VF_INFO of one VF, `size` bytes of it with its head. */
export function vfInfo(vf: number, s: MadeVf, size = 0): Buffer {
  const mac = Buffer.alloc(32);
  Buffer.from(s.mac ?? '', 'hex').copy(mac);
  const body = Buffer.concat([
    attribute(1, Buffer.concat([numbers(vf), mac])),
    attribute(13, Buffer.alloc(32, 0xff)),
    attribute(2, numbers(vf, ...(s.vlan ?? [0, 0]))),
    attribute(6, numbers(vf, ...(s.rate ?? [0, 0]))),
    attribute(3, numbers(vf, s.rate?.[1] ?? 0)),
    attribute(4, numbers(vf, s.spoofchk ?? 1)),
    attribute(5, numbers(vf, s.linkState ?? 0)),
    attribute(9, numbers(vf, s.trust ?? 0)),
  ]);
  const rest = size - 4 - body.length;
  return attribute(1, rest < 8 ? body : Buffer.concat([body, attribute(11, Buffer.alloc(rest - 4))]));
}

/** The whole message; null is an interface that has no VFs. `listSize` is what the list says of its length. */
export function linkMessage(vfs: readonly Buffer[] | null, listSize?: number): Buffer {
  const list = vfs === null ? Buffer.alloc(0) : attribute(22, Buffer.concat(vfs), listSize);
  const body = Buffer.concat([
    Buffer.alloc(16),
    attribute(3, Buffer.from('eth0\0')),
    attribute(21, numbers(vfs?.length ?? 0)),
    list,
  ]);
  return Buffer.concat([numbers(16 + body.length), short(16), short(0), numbers(1, 0), body]);
}
