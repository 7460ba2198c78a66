/** Nova's grammar beyond what its verdicts in test/conformance cover: printing, notes, patterns, the older keys. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseAlias, parseAliases } from '../../../src/nova/grammar/alias.ts';
import {
  type DeviceSpec,
  type HostFacts,
  matchSpec,
  NO_FACTS,
  parseDeviceSpec,
  parseDeviceSpecs,
  printSpec,
  SPEC_CONTEXT,
} from '../../../src/nova/grammar/deviceSpec.ts';
import { NovaError } from '../../../src/nova/grammar/novaError.ts';
import { compileField, PatternError } from '../../../src/nova/grammar/regex.ts';
import { parseRequest, resolveRequest } from '../../../src/nova/grammar/request.ts';
import { starlingxAliases, starlingxNotes } from '../../../src/nova/grammar/starlingx.ts';
import { hexField } from '../../../src/nova/grammar/values.ts';
import { cpuMs } from '../../patience.ts';

const facts: HostFacts = {
  ...NO_FACTS,
  netdev: (n) => (n === 'eth0' ? '0000:81:00.0' : null),
  isPf: (a) => a === '0000:81:00.0',
};
const one = (value: unknown): DeviceSpec => {
  const [spec] = parseDeviceSpec(value, { ...SPEC_CONTEXT, facts }).specs;
  if (spec === undefined) throw new Error('no spec');
  return spec;
};
const device = (address: string, parent: string | null = null) => ({
  address,
  vendor_id: '8086',
  product_id: '1515',
  parent_addr: parent,
  card_serial_number: null,
});
const errorOf = (f: () => unknown): { novaClass: string; code: string; key: string | null; exit: number } => {
  try {
    f();
  } catch (e) {
    if (e instanceof NovaError) return { novaClass: e.novaClass, code: e.code, key: e.key, exit: e.exit };
    throw e;
  }
  throw new Error('nothing was raised');
};

describe('device_spec', () => {
  test.each([
    '{}',
    '{"vendor_id":"8086","product_id":"1515"}',
    '{"address":"0000:0a:00.*","physical_network":null}',
    '{"address":":0a:"}',
    '{"address":{"bus":"0[ab]","function":"0"},"managed":"no","x":[1,{"y":null}]}',
    '{"devname":"eth0","trusted":"true"}',
    '{"devname":""}',
    '{"address":"0000:81:00.0","__proto__":"x","constructor":1}',
    '{"vendor_id":"-1"}',
  ])('%s is the same when printed and parsed again', (text) => {
    const spec = one(text);
    expect(one(printSpec(spec))).toEqual(spec);
  });

  test('an error names the class of Nova, our code and the key', () => {
    expect(errorOf(() => one({ managed: 'maybe' }))).toEqual({
      novaClass: 'PciConfigInvalidSpec',
      code: 'HOSTDEV_SPEC',
      key: 'managed',
      exit: 3,
    });
    expect(errorOf(() => one({ address: '1:2:3:4.5' }))).toMatchObject({
      code: 'HOSTDEV_SPEC_ADDRESS',
      key: 'address',
    });
    expect(errorOf(() => one({ address: '::.0', devname: 'eth0' }))).toMatchObject({ code: 'HOSTDEV_SPEC_DEVNAME' });
    expect(errorOf(() => one({ one_time_use: 'yes' }))).toMatchObject({ key: 'one_time_use' });
    expect(errorOf(() => one(`${'['.repeat(5000)}${']'.repeat(5000)}`))).toMatchObject({ code: 'HOSTDEV_SPEC' });
  });

  test('a slip is a tag, as in Nova, and noted', () => {
    const { specs, notes } = parseDeviceSpec({ manged: 'no' });
    expect(specs[0]?.tags).toEqual({ manged: 'no' });
    expect(notes).toEqual([expect.objectContaining({ key: 'manged', suggestion: 'managed' })]);
    expect(parseDeviceSpec({ address: { func: '0' } }).notes).toEqual([
      expect.objectContaining({ suggestion: 'function' }),
    ]);
  });

  test("seed 003's device_id: a tag with a hint", () => {
    const value = { device_id: '8086', product_id: '1515' };
    const hinted = parseDeviceSpec(value);
    expect(hinted.specs[0]).toMatchObject({ vendor_id: '*', tags: { device_id: '8086' } });
    expect(hinted.notes).toEqual([expect.objectContaining({ key: 'device_id', suggestion: 'vendor_id' })]);
  });

  test('a duplicate is noted, and the first is kept', () => {
    const { specs, notes } = parseDeviceSpecs([{ vendor_id: '8086', managed: 'no' }, { vendor_id: '0x8086' }]);
    expect(notes).toEqual([expect.objectContaining({ text: expect.stringContaining('device_spec 2') as string })]);
    expect(matchSpec(specs, device('0000:81:10.0'))).toMatchObject({ index: 0, tags: { managed: 'false' } });
  });

  test('a PF address and a devname take the VFs; a device beyond the limits is left out and said', () => {
    for (const spec of [{ address: '0000:81:00.0' }, { devname: 'eth0' }]) {
      const specs = [one(spec)];
      expect(matchSpec(specs, device('0000:81:10.0', '0000:81:00.0'), facts).index).toBe(0);
      expect(matchSpec(specs, device('0000:82:10.0', '0000:82:00.0'), facts).index).toBe(null);
    }
    expect(matchSpec([one({})], device('10000:81:10.0')).error).toMatchObject({ novaClass: 'PciConfigInvalidSpec' });
    expect(matchSpec([one({})], device('hello')).error).toMatchObject({ novaClass: 'PciDeviceWrongAddressFormat' });
  });
});

describe('patterns are Python re.match on short texts', () => {
  test.each<[pattern: string, yes: string[], no: string[]]>([
    ['0', ['0a', '00'], ['a0']],
    ['0$', ['0'], ['0a']],
    ['', ['0a', ''], []],
    ['a|0b', ['a1', '0b'], ['0a']],
    ['[^0-9]', ['a1'], ['1a']],
    ['[]a]', [']', 'a'], ['b']],
    ['(?i)0A', ['0a', '0A'], ['0b']],
    ['(?i:A)b', ['ab', 'Ab'], ['aB']],
    ['0{2,3}$', ['00', '000'], ['0', '0000']],
    ['0{,2}$', ['', '00'], ['000']],
    ['0{x', ['0{x'], ['00']],
    ['(?:1|2)+$', ['12', '2'], ['123', '']],
    ['(?P<n>8)1', ['81'], ['18']],
    ['(?!81)..', ['82'], ['81']],
    ['(?=8).1', ['81'], ['91']],
    ['\\d\\D', ['1a'], ['11', 'aa']],
    ['\\x30\\Z', ['0'], ['00']],
    ['8(?#comment)1', ['81'], ['8']],
    ['(a*)*$', ['aaaa', ''], ['aaab']],
    ['.*?1\\b', ['81', '001'], ['812']],
  ])('%s', (pattern, yes, no) => {
    const matches = compileField(pattern);
    for (const s of yes) expect([s, matches(s)]).toEqual([s, true]);
    for (const s of no) expect([s, matches(s)]).toEqual([s, false]);
  });

  test.each([
    '(',
    ')',
    '*',
    'a**',
    '[z-a]',
    '[',
    '^*',
    '(a)\\1',
    'a*+',
    '(?<=a)b',
    '(?x)a',
    '\\q',
    '(?P<n>a)(?P<n>b)',
    'a{3,2}',
    'x'.repeat(600),
  ])('%s is refused', (pattern) => expect(() => compileField(pattern)).toThrow(PatternError));

  test('no pattern is catastrophic', () => {
    const nested = `${'('.repeat(30)}a*${')*'.repeat(30)}$`;
    const counted = `${'(?:'.repeat(30)}a?${'){9}'.repeat(30)}$`;
    const from = cpuMs();
    for (const p of [nested, counted, '(a|aa)+$', '(.*)*(.*)*(.*)*x']) {
      expect(compileField(p)('aaaaaaab')).toBe(false);
    }
    expect(cpuMs() - from).toBeLessThan(500);
  });
});

describe('aliases and requests', () => {
  const ids = { vendor_id: '8086', product_id: '0443' };

  test('an unknown key is an error with a suggestion', () => {
    expect(errorOf(() => parseAlias({ name: 'a', ...ids, numa_polcy: 'required' }))).toMatchObject({
      code: 'HOSTDEV_ALIAS',
      key: 'numa_polcy',
    });
  });

  test('what a second alias of one name must agree in', () => {
    const twice = (a: object, b: object) => () =>
      parseAliases(
        [
          { name: 'a', ...ids, ...a },
          { name: 'a', ...ids, ...b },
        ],
        false,
      );
    expect(twice({}, {})().get('a')?.specs).toHaveLength(2);
    expect(errorOf(twice({ device_type: 'type-VF' }, {}))).toMatchObject({ key: 'device_type' });
    expect(errorOf(twice({ numa_policy: 'socket' }, {}))).toMatchObject({ key: 'numa_policy' });
  });

  test('"gpu:1, qat-c62x-vf:2", a number left out is 1 and said', () => {
    expect(parseRequest('gpu:1, qat-c62x-vf:2').wants).toEqual([
      { name: 'gpu', count: 1 },
      { name: 'qat-c62x-vf', count: 2 },
    ]);
    const { wants, notes } = parseRequest('gpu');
    expect(wants).toEqual([{ name: 'gpu', count: 1 }]);
    expect(notes).toHaveLength(1);
    for (const bad of ['', ',', 'a:', 'a:x', 'a:1.5', 'a:-1', 'a:1;b:2', 'a:9999999999']) {
      expect(errorOf(() => parseRequest(bad))).toMatchObject({ code: 'HOSTDEV_REQUEST', exit: 2 });
    }
    const aliases = parseAliases([{ name: 'gpu', ...ids }], false);
    expect(errorOf(() => resolveRequest('gpv:1', aliases))).toMatchObject({ code: 'HOSTDEV_ALIAS_ABSENT', exit: 4 });
    expect(resolveRequest('gpu:2', aliases, 'socket').requests[0]).toMatchObject({ count: 2, numa_policy: 'socket' });
    expect(errorOf(() => resolveRequest('gpu:2', aliases, 'near'))).toMatchObject({ code: 'HOSTDEV_REQUEST' });
  });

  test("StarlingX's aliases leave the operator's own alone, and warn of what its guide warns of", () => {
    const own = parseAliases([{ name: 'qat-c62x-vf', ...ids }], false);
    const { values, notes } = starlingxAliases(own, false);
    expect(parseAliases(values, false).get('qat-vf')?.specs).toHaveLength(2);
    expect(parseAliases(values, false).has('qat-c62x-vf')).toBe(false);
    expect(notes).toHaveLength(1);
    expect([...parseAliases(starlingxAliases(new Map(), true).values, true).keys()]).toEqual([
      'qat-dh895xcc-vf',
      'qat-c62x-vf',
    ]);
    const card = (n: number) => [
      { address: `0000:0${n}:00.0`, vendor_id: '8086', product_id: '37c8', parent_addr: null },
      { address: `0000:0${n}:01.0`, vendor_id: '8086', product_id: '37c9', parent_addr: `0000:0${n}:00.0` },
    ];
    expect(starlingxNotes([...card(1), ...card(2)]).map((n) => n.text)).toEqual([
      expect.stringContaining('2 cards'),
      expect.stringContaining('qat-pf'),
      expect.stringContaining('denylist'),
    ]);
    expect(starlingxNotes([])).toEqual([]);
  });
});

/**
 * What Python 3.11 answered, as test/data/python-*.json has it: patterns with re.match on SUBJECTS (null is re.error),
 * texts with int(text, 16).
 */
describe('as Python', () => {
  const SUBJECTS = ['', '0', '0a', '00', '10', '1f', '81', '0000', 'ffff', 'a8', '8'];
  const read = <T>(name: string): T => JSON.parse(readFileSync(`test/data/${name}.json`, 'utf8')) as T;
  /** Python takes these, and we say that we do not. */
  const REFUSED = /not supported/;

  test('re.match', () => {
    let refused = 0;
    for (const [pattern, verdict] of read<[string, string | null][]>('python-re')) {
      let ours: string | null = null;
      try {
        const matches = compileField(pattern);
        ours = SUBJECTS.map((s) => Number(matches(s))).join('');
      } catch (e) {
        if (!(e instanceof PatternError)) throw e;
        if (verdict !== null && REFUSED.test(e.message)) {
          refused += 1;
          continue;
        }
      }
      expect([pattern, ours]).toEqual([pattern, verdict]);
    }
    expect(refused).toBeLessThan(10);
  });

  test('int(text, 16)', () => {
    for (const [text, value] of read<[string, number | null][]>('python-int')) {
      let ours: number | null = null;
      try {
        ours = Number.parseInt(hexField('x', text, 0xffffffff, 1), 16);
      } catch (e) {
        if (!(e instanceof NovaError)) throw e;
      }
      // -0 is 0 in Python.
      expect([text, ours === null ? null : ours + 0]).toEqual([text, value]);
    }
  });
});
