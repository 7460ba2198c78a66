/** A finding is one type, whoever finds: doctor, `group why`, `config check`, `domain check`; an error makes exit 3. */
import { afterEach, expect, test } from 'vitest';
import type { Finding } from '../../../src/text/finding.ts';
import { type Ran, StaticHost } from '../../mock/tree.ts';

const hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts.splice(0)) h.remove();
});

const CARD = '0000:01:00.0';

function host(toml = ''): StaticHost {
  const h = new StaticHost();
  hosts.push(h);
  h.file(`sys/bus/pci/devices/${CARD}/modalias`, 'pci:v00008086d000010C9sv00000000sd00000000bc02sc00i00\n');
  h.file('etc/hostdev/hostdev.toml', toml);
  h.file(
    'domain.xml',
    "<domain type='kvm'><name>a</name><os><type machine='pc'>hvm</type></os><devices><iommu model='nosuch'/></devices></domain>",
  );
  return h;
}

/** The lists of findings in an answer, wherever they are. */
function found({ json }: Ran): Finding[] {
  const { findings, mistakes, remarks, why } = json as unknown as Record<string, Finding[]> & {
    why?: { causes: Finding[] };
  };
  return [findings, mistakes, remarks, why?.causes].flatMap((list) => list ?? []);
}

const TOML = '[[device_spec]]\nvendor_id = 8086\nmanged = "no"\n';

test.each([
  ['doctor', ['doctor']],
  ['group why', ['group', 'why', CARD]],
  ['config check', ['config', 'check']],
  ['domain check', ['domain', 'check', '@', '--libvirt', '9.0.0', '--qemu', '7.2']],
])('%s', (_, words) => {
  const h = host(TOML);
  const ran = h.run('-j', ...words.map((w) => (w === '@' ? h.path('domain.xml') : w)));
  const all = found(ran);
  expect(all.length).toBeGreaterThan(0);
  for (const f of all) {
    expect(Object.keys(f).slice(0, 5)).toEqual(['id', 'severity', 'object', 'cause', 'fix']);
    expect(f.id).toMatch(/^[a-z][a-z0-9-]+$/);
    expect(['error', 'warning', 'note']).toContain(f.severity);
    expect([f.object, f.cause].every((t) => typeof t === 'string' && t !== '')).toBe(true);
    for (const x of f.fix) {
      expect(Object.keys(x).sort()).toEqual(['after', 'line', 'present', 'tool', 'where']);
      expect(x.line).not.toBe('');
    }
  }
  expect(ran.exit).toBe(all.some((f) => f.severity === 'error') ? 3 : 0);
});

test('what only warns is no error: exit 0', () => {
  const h = host('[[device_spec]]\nvendor_id = "8086"\nproduct_id = "10ca"\n');
  const ran = h.run('-j', 'config', 'check');
  expect(found(ran).map((f) => [f.id, f.severity])).toEqual([['config-remark', 'warning']]);
  expect(ran.exit).toBe(0);
});

test('doctor tells the mistakes of the configuration as config check does', () => {
  const h = host(TOML);
  const mistakes = found(h.run('-j', 'config', 'check')).filter((f) => f.severity === 'error');
  const told = found(h.run('-j', 'doctor')).filter((f) => f.id.startsWith('config-'));
  const core = ({ id, object, cause }: Finding) => ({ id, object, cause });
  expect(mistakes.length).toBeGreaterThan(0);
  expect(told.map(core)).toEqual(mistakes.map(core));
});

test('the keys that each had before are there still', () => {
  const h = host(TOML);
  const [mistake] = found(h.run('-j', 'config', 'check'));
  const own = ['file', 'line', 'column', 'key', 'severity', 'fatal', 'message', 'hint', 'corrected'];
  expect(Object.keys(mistake ?? {})).toEqual(expect.arrayContaining(own));
  const [cause] = found(h.run('-j', 'group', 'why', CARD));
  expect(Object.keys(cause ?? {})).toEqual(expect.arrayContaining(['id', 'blocks', 'object', 'cause', 'change']));
  const [broken] = found(h.run('-j', 'domain', 'check', h.path('domain.xml'), '--libvirt', '9.0.0'));
  expect(Object.keys(broken ?? {})).toEqual(
    expect.arrayContaining(['judge', 'rule', 'stage', 'where', 'line', 'column', 'since', 'source']),
  );
});
