/**
 * File systems and disks that come over the network, and from where: whoever takes away the interface on the way there
 * takes them away too. NFS, SMB and Ceph say their server in mountinfo, iSCSI and NVMe over fabrics in sysfs; of others
 * only that they are there.
 */

import { orNull } from '../errors.ts';
import { type BlockLayer, blockLayer } from './blockLayer.ts';
import type { Look } from './look.ts';
import { isRemote, type Mount, mountOption, parseMounts } from './mounts.ts';

/**
 * `address`: of its server, null where that is not to be told. `disks`: the block devices that come from there; none
 * for a file system.
 */
export type Remote = { what: string; address: string | null; mount: Mount | null; disks: string[] };

export function remotes(look: Look): Remote[] {
  const mounts = parseMounts(look.mayLines(look.host.mountinfo)).filter(isRemote);
  const layer = layerOf(look);
  return [
    ...mounts.map((m) => ({ what: m.type, address: serverOf(m), mount: m, disks: [] })),
    ...(layer === null ? [] : [...iscsi(look, layer), ...fabrics(look, layer), ...others(layer)]),
  ];
}

/** The disk guard notes why there is none. */
const layerOf = (look: Look): BlockLayer | null => orNull(() => look.tables.once(blockLayer));

/** "addr=10.0.0.5" as fs/nfs/super.c and fs/smb/client show it; Ceph's monitors are the source itself. */
function serverOf(m: Mount): string | null {
  const told = mountOption(m, 'addr') ?? (m.type === 'ceph' ? (m.source.split(/[,/]/, 1)[0] ?? null) : null);
  // A port follows IPv4, and IPv6 in brackets.
  const bare = /^(?:\[([^\]]+)\]|(\d+\.\d+\.\d+\.\d+))(?::\d+)?$/.exec(told ?? '');
  const address = bare?.[1] ?? bare?.[2] ?? told;
  return address !== null && isIp(address) ? address : null;
}

/** drivers/scsi/scsi_transport_iscsi.c: a disk lies below its session, whose connections have the portal's address. */
function iscsi(look: Look, layer: BlockLayer): Remote[] {
  const { host } = look;
  return look.names(host.iscsiConnections).flatMap((connection) => {
    const session = /^connection(\d+):/.exec(connection)?.[1];
    if (session === undefined) return [];
    const at = `${host.iscsiConnections}/${connection}`;
    const text = look.attribute(`${at}/persistent_address`) ?? look.attribute(`${at}/address`);
    const address = text?.trim() ?? null;
    const disks = layer.below(`/session${session}/`);
    return [{ what: 'iSCSI', address: address !== null && isIp(address) ? address : null, mount: null, disks }];
  });
}

/** drivers/nvme/host/fabrics.c: "traddr=10.0.0.5,trsvcid=4420". */
function fabrics(look: Look, layer: BlockLayer): Remote[] {
  const { host } = look;
  return look.names(host.nvmeControllers).flatMap((name) => {
    const transport = look.attribute(`${host.nvmeControllers}/${name}/transport`)?.trim();
    if (transport === undefined || transport === 'pcie' || transport === 'loop') return [];
    const text = look.attribute(`${host.nvmeControllers}/${name}/address`) ?? '';
    const address = /traddr=([0-9a-f:.]+)/i.exec(text)?.[1] ?? null;
    const number = name.replace(/\D/g, '');
    const disks = layer.names().filter((n) => new RegExp(`^nvme(${number}n\\d+|\\d+c${number}n\\d+)$`).test(n));
    return [
      {
        what: `NVMe over ${transport}`,
        address: address !== null && isIp(address) ? address : null,
        mount: null,
        disks,
      },
    ];
  });
}

/** Network block devices that are in use say no server. */
const others = (layer: BlockLayer): Remote[] =>
  layer
    .names()
    .filter((n) => /^(nbd|rbd|drbd)\d+$/.test(n) && layer.isUsed(n))
    .map((n) => ({ what: n.replace(/\d+$/, ''), address: null, mount: null, disks: [n] }));

const isIp = (text: string): boolean => /^\d{1,3}(\.\d{1,3}){3}$/.test(text) || /^[0-9a-f]*:[0-9a-f:.]*$/i.test(text);
