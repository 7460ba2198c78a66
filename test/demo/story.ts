/**
 * `npm start`: this host, then the whole path of a guest's device on a simulated one: hook, bind, guest, release, and
 * two refusals.
 */

import { NOT_ASKED } from '../../src/actions/inGuest.ts';
import { listGroups } from '../../src/actions/inspect.ts';
import { readStatus } from '../../src/actions/status.ts';
import { readJournal } from '../../src/binding/journal.ts';
import { HostdevError } from '../../src/errors.ts';
import { runHook } from '../../src/hook/run.ts';
import { domainXml, simulatedHost, UUID_A, type XmlDevice } from '../mock/hosts.ts';
import { printReadiness } from './readiness.ts';

const VF = '0000:21:10.0';
const { host, kernel, remove } = simulatedHost();
let shown = 0;

const say = (text: string): void => void process.stdout.write(`${text}\n`);

/** The writes that the kernel got since the last look, as a shell would do them. */
function showWrites(): void {
  for (const w of kernel.writes.slice(shown)) {
    const at = w.indexOf('=');
    say(`    echo ${JSON.stringify(w.slice(at + 1))} > /${w.slice(0, at)}`);
  }
  if (kernel.writes.length === shown) say('    (nothing written)');
  shown = kernel.writes.length;
}

function showDevice(address: string): void {
  const d = kernel.devices.get(address);
  say(`  ${address} is on ${d?.driver ?? 'no driver'}, driver_override ${d?.override ?? 'unset'}`);
}

async function hook(operation: string, devices: XmlDevice[]): Promise<void> {
  say(`\nlibvirt calls: 90-hostdev guest ${operation} ${operation === 'release' ? 'end' : 'begin'} -`);
  try {
    const xml = domainXml('guest', UUID_A, devices);
    await runHook(host, { name: 'guest', operation, xml }, { allowed: new Set(), deadlineMs: 5000, lockedUuid: null });
    showWrites();
    say('  exit 0: the guest goes on');
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    showWrites();
    say(`  exit ${e.exit}, and virsh shows: ${e.message}. ${e.hint}`);
  }
}

printReadiness();

say(
  '\nA simulated host: an SR-IOV NIC with four VFs, a variant driver for them, and two devices that share an IOMMU group',
);
for (const g of listGroups(host).groups)
  say(
    `  group ${g.id}: ${g.devices.join(' ')}${g.viable ? '' : `  (blocked: ${g.blockers.map((b) => `${b.address} ${b.reason}`).join(', ')})`}`,
  );
showDevice(VF);

const guest: XmlDevice[] = [{ address: VF, managed: 'no' }];
await hook('prepare', guest);
showDevice(VF);
await hook('start', guest);
const { bindings } = await readStatus(host, NOT_ASKED);
say(
  `  the books: ${bindings.map((b) => `${b.address} for ${b.holds.map((h) => h.name).join(', ')}, before on ${b.before.driver}`).join('; ')}`,
);
await hook('release', guest);
showDevice(VF);

say('\nA guest that wants half of a group');
await hook('prepare', [{ address: '0000:26:01.0', managed: 'no' }]);

say('\nA driver whose probe fails without a word, as the kernel does it');
const broken = kernel.drivers.get('tb_igbvf_vfio_pci');
if (broken) broken.probeErrno = 'EIO';
await hook('prepare', guest);
showDevice(VF);
say(`  left in the journal: ${readJournal(host).entries.length} transactions`);

remove();
