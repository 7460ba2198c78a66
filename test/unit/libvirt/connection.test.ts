/**
 * The client of libvirt against libvirt's own test driver, and against sockets that are not there, refuse, hang, or
 * speak something else: each call has its own error, and comes back by its deadline.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LibvirtCallError, type LibvirtCalls } from '../../../src/addon/libvirtCalls.ts';
import { loadNative } from '../../../src/addon/load.ts';
import type { HostdevError } from '../../../src/errors.ts';
import { Host } from '../../../src/host/host.ts';
import { Connection, whichLibvirt } from '../../../src/libvirt/connection.ts';
import { hostdevNetworks, seeDomains } from '../../../src/libvirt/domains.ts';
import { virshVersion } from '../../fuzz/judge.ts';
import { isLacking } from '../../lacking.ts';
import { StaticHost } from '../../mock/tree.ts';
import { EVER } from '../../patience.ts';

const native = loadNative();
const lacks = isLacking(virshVersion() === null ? 'no libvirt to call: apt-get install libvirt-clients' : null);

const dir = mkdtempSync(join(tmpdir(), 'hostdev-libvirt-'));
const NODE = `test://${join(dir, 'node.xml')}`;
writeFileSync(
  join(dir, 'node.xml'),
  `<node>
<domain type='test'><name>gpu</name><uuid>624392bd-9784-4e20-8b29-1e85f123c67d</uuid><memory>8192</memory>
<os><type>hvm</type></os><devices><hostdev mode='subsystem' type='pci' managed='no'><source>
<address domain='0' bus='0x21' slot='0x10' function='0'/></source></hostdev></devices></domain>
<network><name>vfs</name><uuid>624392bd-9784-4e20-8b29-1e85f123c67e</uuid><forward mode='hostdev' managed='yes'>
<address type='pci' domain='0' bus='0x21' slot='0x10' function='0x2'/></forward></network>
<network><name>nat</name><uuid>624392bd-9784-4e20-8b29-1e85f123c67f</uuid><forward mode='nat'/>
<bridge name='virbr9'/><ip address='192.168.129.1' netmask='255.255.255.0'/></network>
</node>`,
);

const sockets = new Set<Socket>();
const servers: Server[] = [];
/** A socket that greets whoever connects with `greeting`, and never answers; its URI. */
async function fakeLibvirt(name: string, greeting: Buffer | null): Promise<string> {
  const path = join(dir, name);
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    if (greeting !== null) socket.end(greeting);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return `qemu+unix:///system?socket=${path}`;
}

afterAll(() => {
  for (const s of sockets) s.destroy();
  for (const s of servers) s.close();
  rmSync(dir, { recursive: true });
});

const open = (calls: LibvirtCalls, uri: string, deadlineMs = EVER): Promise<Connection> =>
  Connection.open(calls, uri, { readOnly: true, deadlineMs });

const failure = (p: Promise<unknown>): Promise<HostdevError> =>
  p.then(
    () => {
      throw new Error('it did not fail');
    },
    (e) => e as HostdevError,
  );

describe('which libvirt', () => {
  test('below another root none, but for --connect', () => {
    const tree = new StaticHost({ devices: [] });
    tree.file('run/libvirt/libvirt-sock', '');
    const host = new Host(tree.root, native);
    expect(whichLibvirt(host, null)).toMatchObject({ uri: null });
    expect(whichLibvirt(host, NODE)).toEqual({ uri: NODE });
    tree.remove();
  });
});

describe.skipIf(lacks)("libvirt's test driver", () => {
  let calls: LibvirtCalls;
  beforeAll(() => {
    calls = native.openLibvirt?.(50) as LibvirtCalls;
  });

  test('guests with their devices, networks of type hostdev, versions', async () => {
    const connection = await open(calls, NODE);
    const [guest, ...more] = await seeDomains(connection, () => EVER);
    expect(more).toEqual([]);
    expect(guest).toMatchObject({ name: 'gpu', active: true, persistent: true, why: null });
    expect(guest?.live?.devices.devices).toMatchObject([{ address: '0000:21:10.0', managed: false }]);
    expect(guest?.kept?.devices.devices).toMatchObject([{ address: '0000:21:10.0', managed: false }]);
    expect(await hostdevNetworks(connection, EVER)).toEqual([
      { name: 'vfs', managed: true, devices: ['0000:21:10.2'], pfs: [] },
    ]);
    const { library, daemon } = await connection.versions(EVER);
    expect(daemon).toBe(library);
    connection.close();
  });

  test('2,000 calls on 50 threads: each fails with its own error', async () => {
    const rows = await calls.call('open', 0, NODE, 0, EVER);
    const connection = Number(rows[0]?.[0]);
    const errors = await Promise.all(
      Array.from({ length: 2000 }, (_, i) =>
        calls.call('define', connection, `<no-${i}-domain/>`, 0, EVER).then(
          () => null,
          (e) => e as LibvirtCallError,
        ),
      ),
    );
    const wrong = errors.flatMap((e, i) => (e?.message.includes(`'no-${i}-domain'`) ? [] : [e?.message]));
    expect(wrong).toEqual([]);
    expect(errors).toHaveLength(2000);
  });

  test('events come, and a connection that was closed has no more calls', async () => {
    const own = native.openLibvirt?.() as LibvirtCalls;
    const heard: string[] = [];
    const came = new Promise<void>((resolve) => {
      own.listen((events) => {
        heard.push(...events.map((e) => `${e.kind} ${e.number} ${e.name}`));
        if (heard.length >= 1) resolve();
      });
    });
    const connection = await Connection.open(own, NODE, { readOnly: false, events: true, deadlineMs: EVER });
    const xml = "<domain type='test'><name>new</name><memory>8192</memory><os><type>hvm</type></os></domain>";
    await connection.call('define', xml, 1, EVER);
    await came;
    expect(heard).toEqual(['lifecycle 0 new']);
    connection.close();
    await expect
      .poll(() => connection.call('domains', '', 0, EVER).catch((e) => (e as HostdevError).code), { timeout: EVER })
      .toBe('HOSTDEV_LIBVIRT_UNREACHABLE');
    expect((await failure(connection.call('domains', '', 0, EVER))).message).toBe(
      `libvirt "${NODE}": domains: the connection is closed`,
    );
  });

  test("a guest that is not there, an XML that is none: libvirt's own codes", async () => {
    const connection = await Connection.open(calls, NODE, { readOnly: false, deadlineMs: EVER });
    const absent = await failure(connection.call('domain-xml', '00000000-0000-4000-8000-000000000000', 0, EVER));
    expect(absent).toMatchObject({ code: 'HOSTDEV_GUEST_ABSENT', exit: 4 });
    const broken = await failure(connection.call('define', '<domain', 1, EVER));
    expect(broken).toMatchObject({ code: 'HOSTDEV_LIBVIRT', exit: 1, data: { libvirt: { domain: 20 } } });
  });
});

describe.skipIf(lacks)('a libvirt that is not well', () => {
  const calls = native.openLibvirt?.() as LibvirtCalls;

  test('is not there', async () => {
    const e = await failure(open(calls, `qemu+unix:///system?socket=${dir}/none`));
    expect(e).toMatchObject({ code: 'HOSTDEV_LIBVIRT_UNREACHABLE', exit: 8, data: { libvirt: { code: 38 } } });
  });

  test('refuses: nobody listens behind its socket', async () => {
    const uri = await fakeLibvirt('refuses', null);
    await new Promise((resolve) => servers.at(-1)?.close(resolve));
    const e = await failure(open(calls, uri));
    expect(e).toMatchObject({ code: 'HOSTDEV_LIBVIRT_UNREACHABLE', exit: 8 });
  });

  test('hangs: every call is back by its deadline, and what was not begun never is', async () => {
    const uri = await fakeLibvirt('hangs', null);
    const own = native.openLibvirt?.(2) as LibvirtCalls;
    const late = await Promise.all(Array.from({ length: 8 }, () => failure(open(own, uri, 300))));
    expect(late.map((e) => [e.code, e.exit])).toEqual(Array(8).fill(['HOSTDEV_LIBVIRT_LATE', 9]));
    // The threads that hang are replaced.
    const connection = await open(own, NODE);
    expect(await connection.call('domains', '', 0, EVER)).toHaveLength(1);
  });

  test('speaks something else, and hangs up', async () => {
    // Length 28, another program, another version, and nothing behind.
    const uri = await fakeLibvirt(
      'speaks',
      Buffer.from('0000001c20008099000000090000000000000001ffffffff00000000', 'hex'),
    );
    const e = await failure(open(calls, uri, EVER));
    expect(e).toMatchObject({ code: 'HOSTDEV_LIBVIRT_UNREACHABLE', exit: 8 });
  });

  test('no scheme that libvirt knows', async () => {
    expect((await failure(open(calls, 'nonsense:///'))).exit).toBe(8);
  });
});

test('a late call says whether it was begun', () => {
  const fault = { domain: 0, code: 0, message: 'late', call: 'define' };
  expect(new LibvirtCallError(fault, true, false)).toMatchObject({ late: true, begun: false });
});
