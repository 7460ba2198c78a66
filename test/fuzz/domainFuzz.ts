/**
 * Our verdict on domains by chance beside that of a libvirt, disagreements made small and grouped:
 *
 *     node test/fuzz/run.mjs [--seed 1] [--count 2000] [--uri test:///default] [--type test]
 *       [--libvirt 9.0.0] [--qemu 7.2.22] [--show 3] [--kinds 40]
 *
 * With --corpus DIR the domains are the files there; with --record FILE the answers are written beside those of other
 * libvirts. The test driver judges domains of type 'test'; for the QEMU driver give its URI, --type qemu and its
 * versions.
 */
import { parseArgs } from 'node:util';
import { parseVersion } from '../../src/domain/version.ts';
import { corpusDisagreements } from './corpus.ts';
import { type Disagreement, disagreements, kindOf, minimised } from './domainVerdicts.ts';
import { TEST_DRIVER, virshVersion } from './judge.ts';
import { record } from './record.ts';
import { write } from './tree.ts';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string', default: '1' },
      count: { type: 'string', default: '2000' },
      uri: { type: 'string', default: TEST_DRIVER },
      type: { type: 'string', default: 'test' },
      libvirt: { type: 'string' },
      qemu: { type: 'string', default: '7.2.22' },
      show: { type: 'string', default: '3' },
      corpus: { type: 'string' },
      record: { type: 'string' },
      kinds: { type: 'string', default: '40' },
    },
  });
  const libvirt = values.libvirt ?? virshVersion();
  if (libvirt === null) throw new Error('there is no virsh here');
  const versions = { libvirt: parseVersion(libvirt), qemu: parseVersion(values.qemu) };
  const target = { uri: values.uri, type: values.type, versions };
  if (values.corpus !== undefined) {
    const { count, lines } = await corpusDisagreements(values.corpus, target);
    console.log([`${count} domains, ${lines.length} disagreements`, ...lines].join('\n'));
    return;
  }
  if (values.record !== undefined) {
    // The bundle does not stand where the source does: the file is named.
    await record(Number(values.seed), Number(values.count), target, { libvirt, qemu: values.qemu }, values.record);
    return;
  }
  const found = await disagreements(Number(values.seed), Number(values.count), target);
  const kinds = new Map<string, Disagreement[]>();
  for (const d of found) kinds.set(kindOf(d), [...(kinds.get(kindOf(d)) ?? []), d]);
  console.log(
    `${values.count} domains, ${found.length} disagreements of ${kinds.size} kinds (libvirt ${libvirt}, ${values.uri})`,
  );
  for (const [kind, all] of [...kinds].sort((a, b) => b[1].length - a[1].length).slice(0, Number(values.kinds))) {
    console.log(`\n== ${all.length}: ${kind}`);
    for (const d of all.slice(0, Number(values.show))) {
      const m = await minimised(d, target);
      console.log(`  ${write(m.tree)}\n    libvirt: ${m.libvirt ?? 'ok'}\n    ours: ${m.ours.join(' | ') || 'ok'}`);
    }
  }
}

await main();
