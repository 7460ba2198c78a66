/**
 * In the emulated machine, on a real kernel: `list` and `bind` against driverctl, virsh and lspci, as whole processes.
 */
import { createVfs, defineDomain, hostdevXml, installHostdev } from '../vm/guest.ts';
import { startMachine } from '../vm/machine.ts';
import { above, type Figure, markdown, median } from './measure.ts';

const VF = '0000:21:10.0';
const LIST_RUNS = 9;
const BIND_RUNS = 7;

/** A loop in bash: EPOCHREALTIME costs no process. Each command in turn; what puts the device back is not timed. */
const script = (runs: number, rows: [what: string, command: string, back: string][]): string => `
  for ((i = 0; i <= ${runs}; i++)); do
${rows
  .map(
    ([what, command, back]) => `    a=$EPOCHREALTIME; ${command} > /dev/null 2>&1; r=$?; b=$EPOCHREALTIME
    [ $r = 0 ] || { echo "${what}: exit $r" >&2; exit 1; }
    [ $i = 0 ] || echo "${what}|$(( (\${b/./} - \${a/./}) ))"
    { ${back || ':'}; } > /dev/null 2>&1`,
  )
  .join('\n')}
  done`;

function parse(stdout: string): Figure[] {
  const figures = new Map<string, Figure>();
  for (const line of stdout.trim().split('\n')) {
    const [what = '', us = ''] = line.split('|');
    const f = figures.get(what) ?? { what, ms: [] };
    f.ms.push(Number(us) / 1000);
    figures.set(what, f);
  }
  return [...figures.values()];
}

function table(title: string, figures: Figure[]): string {
  const start = figures.find((f) => f.what === 'node -e 0');
  const peers = figures.filter((f) => !/^(node|hostdev)/.test(f.what)).map((f) => ({ what: f.what, ms: median(f) }));
  const fastest = peers.sort((a, b) => a.ms - b.ms)[0];
  const remark = (f: Figure): string => {
    if (!f.what.startsWith('hostdev') || fastest === undefined) return '';
    const ms = median(above(f, start));
    if (ms < 0) return `${(-ms).toFixed(0)} ms below a bare node`;
    return `${ms.toFixed(0)} ms above a bare node: ${(ms / fastest.ms).toFixed(2)} x ${fastest.what}`;
  };
  return [`### ${title}`, '', markdown(figures, remark), ''].join('\n');
}

const PEER_IN = 'virsh nodedev-detach + attach-device';
const PEER_OUT = 'virsh detach-device + nodedev-reattach';
/** libvirt's own "detached" comes before the device is gone. */
const GONE = 'until ! virsh dumpxml g | grep -q "bus=\'0x21\'"; do sleep 0.05; done';

/** Each of ours above a bare node, against what it stands for. */
function plugTable(figures: Figure[]): string {
  const start = figures.find((f) => f.what === 'node -e 0');
  const remark = (f: Figure): string => {
    const peer = figures.find((p) => p.what === (f.what.includes('attach') ? PEER_IN : PEER_OUT));
    if (!f.what.startsWith('hostdev') || peer === undefined) return '';
    const ms = median(above(f, start));
    return `${ms.toFixed(0)} ms above a bare node: ${(ms / median(peer)).toFixed(2)} x ${peer.what}`;
  };
  return [
    '### A VF into a guest that runs, and out of it, in the emulated machine',
    '',
    markdown(figures, remark),
    'To reach: at most 1.15 x, above a bare node.',
    '',
  ].join('\n');
}

/** Boots a machine and returns the markdown of both tables. */
export async function benchMachine(): Promise<string> {
  const m = await startMachine({ profile: 'intel', name: 'bench' });
  try {
    await installHostdev(m);
    await createVfs(m, '0000:21:00.0', 4);
    await m.ok(
      `systemctl is-system-running --wait; modprobe vfio-pci; virsh nodedev-list > /dev/null; until [ -e /sys/bus/pci/devices/${VF}/driver ]; do sleep 0.2; done`,
    );
    const run = async (text: string): Promise<Figure[]> => {
      const r = await m.sh(text, { timeoutMs: 580_000 });
      if (r.code !== 0) throw new Error(r.stderr);
      return parse(r.stdout);
    };
    const count = await m.ok('ls /sys/bus/pci/devices | wc -l');
    const list = await run(
      script(LIST_RUNS, [
        ['node -e 0', 'node -e 0', ''],
        ['hostdev list -j', 'hostdev list -j', ''],
        ['hostdev list', 'hostdev list', ''],
        ['lspci -nnk', 'lspci -nnk', ''],
        ['driverctl list-devices', 'driverctl list-devices', ''],
        ['virsh nodedev-list --cap pci', 'virsh nodedev-list --cap pci', ''],
      ]),
    );
    const name = `pci_${VF.replace(/[:.]/g, '_')}`;
    const bind = await run(
      script(BIND_RUNS, [
        ['node -e 0', 'node -e 0', ''],
        ['hostdev bind --driver vfio-pci', `hostdev bind --driver vfio-pci ${VF}`, `hostdev unbind ${VF}`],
        ['hostdev bind', `hostdev bind ${VF}`, `hostdev unbind ${VF}`],
        [
          'driverctl --nosave set-override vfio-pci',
          `driverctl --nosave set-override ${VF} vfio-pci`,
          `driverctl --nosave unset-override ${VF}`,
        ],
        ['virsh nodedev-detach', `virsh nodedev-detach ${name}`, `virsh nodedev-reattach ${name}`],
      ]),
    );
    await m.write('/tmp/vf.xml', hostdevXml({ address: VF, managed: false }));
    await defineDomain(m, { name: 'g' });
    await m.ok('virsh start g', { timeoutMs: 180_000 });
    const plug = await run(
      script(BIND_RUNS, [
        ['node -e 0', 'node -e 0', ''],
        ['hostdev attach --live', `hostdev attach g ${VF} --managed no --driver auto --live`, ''],
        ['hostdev detach --live', `hostdev detach g ${VF} --live`, ''],
        [PEER_IN, `virsh "nodedev-detach ${name}; attach-device g /tmp/vf.xml --live"`, ''],
        [PEER_OUT, `{ virsh detach-device g /tmp/vf.xml --live && ${GONE} && virsh nodedev-reattach ${name}; }`, ''],
      ]),
    );
    const cpu = await m.ok(
      `TIMEFORMAT='%U %S'; for c in 'node -e 0' 'hostdev attach g ${VF} --managed no --live' 'hostdev detach g ${VF} --live'; do t=$({ time $c > /dev/null 2>&1; } 2>&1); echo "$c: $t"; done`,
    );
    const versions = await m.ok(
      `echo "Linux $(uname -r), node $(node -p process.versions.node), $(lspci --version), driverctl $(dpkg-query -Wf '\${Version}' driverctl), libvirt $(virsh --version)"`,
    );
    const goal = 'To reach: hostdev above a bare node no slower than the fastest of the others.';
    return [
      `In it: ${versions}; ${m.boot.accel.toUpperCase()}.`,
      '',
      table(`\`list\` of ${count} functions in the emulated machine`, list),
      goal,
      '',
      table('`bind` of one VF in the emulated machine', bind),
      goal,
      '',
      plugTable(plug),
      'Processor time in seconds (user, system):',
      '',
      '```',
      cpu,
      '```',
      '',
    ].join('\n');
  } finally {
    await m.stop();
  }
}
