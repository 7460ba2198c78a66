/** Which libvirt and QEMU this host has. Asked of the programs themselves: no daemon need run, and none is started. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { parseVersion, type Version, type Versions } from '../domain/version.ts';
import type { Host } from '../host/host.ts';
import type { Connection } from './connection.ts';

const run = promisify(execFile);

/** Time for one program to say its version, in ms. */
const LIMIT_MS = 5000;

/** Words before the number: "libvirtd (libvirt) 9.0.0", "9.0.0" (virsh), "QEMU emulator version 7.2.22 (Debian …)". */
const NUMBER = /(?:^|\s)(\d{1,3}\.\d{1,3}\.\d{1,3})/;

async function ask(host: Host, programs: readonly string[]): Promise<Version | null> {
  for (const program of programs) {
    try {
      const { stdout } = await run(program, ['--version'], {
        timeout: LIMIT_MS,
        maxBuffer: 16 * 1024,
        env: { PATH: host.programs, LC_ALL: 'C' },
      });
      const v = parseVersion(NUMBER.exec(stdout)?.[1] ?? '');
      if (v !== null) return v;
    } catch {
      // Not there, or it does not say: the next one.
    }
  }
  return null;
}

/** libvirt's programs, the daemons first: virsh may be of another package. */
const LIBVIRT = ['virtqemud', 'libvirtd', 'virsh'];

/** The installed libvirt; null is not measured, which it is below another root than /. */
export const installedLibvirt = async (host: Host): Promise<Version | null> =>
  host.isReal ? ask(host, LIBVIRT) : null;

/**
 * The installed versions; null is not measured, which below another root than / all are. `arch` is the guest's. The
 * emulator that the domain's XML names is not run: it may be anything.
 */
export async function installedVersions(host: Host, arch: string): Promise<Versions> {
  if (!host.isReal) return { libvirt: null, qemu: null };
  const known = /^(x86_64|i686|aarch64|armv7l|armv6l)$/.test(arch) ? arch : 'x86_64';
  const system = known === 'i686' ? 'i386' : known.startsWith('armv') ? 'arm' : known;
  const emulators = [`qemu-system-${system}`, ...(system === 'x86_64' ? ['qemu-kvm', '/usr/libexec/qemu-kvm'] : [])];
  const [libvirt, qemu] = await Promise.all([installedLibvirt(host), ask(host, emulators)]);
  return { libvirt, qemu };
}

/**
 * Those of the libvirt behind a connection, which may be another than is installed here. QEMU's is that of its default
 * emulator; a driver without one (test:///default counts its own) has none.
 */
export async function connectedVersions(connection: Connection, deadlineMs: number): Promise<Versions> {
  const { daemon, hypervisor } = await connection.versions(deadlineMs);
  return { libvirt: daemon, qemu: /^qemu[+:]/.test(connection.uri) ? hypervisor : null };
}
