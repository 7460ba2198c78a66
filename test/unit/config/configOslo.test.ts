/** Files of oslo.config: what hostdev makes of them is what oslo.config 9.0.0 itself made of them (test/data/oslo). */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { emptyConfig } from '../../../src/config/config.ts';
import { addNovaFiles } from '../../../src/config/novaConf.ts';
import { readNovaOptions } from '../../../src/config/novaOptions.ts';
import { cpuMs } from '../../patience.ts';

type Answer = { device_spec: string[]; alias: string[]; report_in_placement: boolean; pci_in_placement: boolean };
type Case = { texts: string[]; answer: Answer | { error: string } };
const CASES = JSON.parse(readFileSync('test/data/oslo/cases.json', 'utf8')) as Case[];

const read = (texts: string[]) => readNovaOptions(texts.map((text, n) => ({ file: `${n}.conf`, text })));

describe('oslo.config', () => {
  test('the cases are all there, taken and refused ones', () => {
    const refused = CASES.filter((c) => 'error' in c.answer).length;
    expect(CASES.length).toBeGreaterThan(400);
    expect(refused).toBeGreaterThan(150);
    expect(CASES.length - refused).toBeGreaterThan(150);
  });

  test.each(CASES.map((c, n) => [n, c] as const))('case %i', (_, { texts, answer }) => {
    const r = read(texts);
    const fatal = r.findings.filter((f) => f.fatal);
    if ('error' in answer) {
      expect(fatal).not.toEqual([]);
      return;
    }
    expect(fatal).toEqual([]);
    const values = (kind: string): string[] => r.texts.filter((t) => t.kind === kind).map((t) => t.text);
    expect({ device_spec: values('device_spec'), alias: values('alias'), ...r.switches }).toEqual(answer);
  });
});

describe('bounds', () => {
  test('references that multiply or come back to themselves end', () => {
    const bomb = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'].map(
      (n, i, all) => `${n} = ${`$${all[(i + 1) % all.length]}`.repeat(1000)}\n`,
    );
    const from = cpuMs();
    const r = read([`[pci]\n${bomb.join('')}device_spec = $a\nalias = $alias\n`]);
    expect(cpuMs() - from).toBeLessThan(2000);
    expect(r.findings.filter((f) => f.fatal && /refers to itself/.test(f.message)).length).toBeGreaterThan(1);
    expect(r.texts.every((t) => t.text.length <= 2 * 1024 * 1024)).toBe(true);
  });

  test('a value of very many lines is placed without counting them for each part of it', async () => {
    const lines = 60_000;
    const config = emptyConfig('nova');
    const from = cpuMs();
    addNovaFiles(config, [
      { file: 'n', text: `[pci]\ndevice_spec = [\n${'  {"a": 1},\n'.repeat(lines)}  {"a": 2}]\n` },
    ]);
    expect(cpuMs() - from).toBeLessThan(5000);
    expect(config.specs).toHaveLength(lines + 1);
    expect(config.specs.at(-1)?.place).toMatchObject({ line: lines + 3, column: 3 });
  });
});

describe('places', () => {
  test('every line of a value knows where it stands, behind quotes and blanks', () => {
    const [t] = read(['[pci]\n# c\ndevice_spec =  "{"\n    x\n\t y\n']).texts;
    expect(t?.option.lines).toEqual([
      { line: 3, column: 17, text: '{' },
      { line: 4, column: 5, text: 'x' },
      { line: 5, column: 3, text: 'y' },
    ]);
  });

  test('all mistakes of a file are told, not only the first', () => {
    const { findings } = read(['x = 1\n  y\n[pci\nnothing\n[pci]\n = 2\nreport_in_placement = maybe\n']);
    expect(findings.map((f) => [f.line, f.fatal])).toEqual([
      [1, true],
      [2, true],
      [3, true],
      [4, true],
      [6, true],
      [7, true],
    ]);
  });

  test.each([
    ['[pci]\ndevice_specs = {}\n', 'device_spec'],
    ['[pci]\ndev_spec = {}\n', 'device_spec'],
    ['[pci]\nAlias = {}\n', 'alias'],
    ['[pci]\npci_in_placement = true\n', '[filter_scheduler] pci_in_placement'],
    ['[DEFAULT]\ndevice_spec = {}\n', '[pci] device_spec'],
    ['[pcii]\nalias = {}\n', '[pci] alias'],
    ['[libvirt]\ndevice_spec = {}\n', '[pci] device_spec'],
    ['[pci]\npci_passthrough_whitelist = {}\n', '[DEFAULT] pci_passthrough_whitelist'],
  ])('%j is read over by Nova and suggests %s', (text, hint) => {
    const [f, ...more] = read([text]).findings;
    expect(f).toMatchObject({ line: 2, severity: 'error', fatal: false, hint: expect.stringContaining(hint) });
    expect(more).toEqual([]);
  });

  test('options of others are no affair of ours', () => {
    expect(
      read(['[DEFAULT]\nhost = a\n[database]\nalias = x\nconnection = y\n[filter_scheduler]\nenabled_filters = z\n'])
        .findings,
    ).toEqual([]);
  });

  test('an old name is read and said', () => {
    const r = read(['[pci]\npasstrough = 1\npassthrough_whitelist = {}\n']);
    expect(r.texts.map((t) => t.text)).toEqual(['{}']);
    expect(r.findings).toMatchObject([
      { severity: 'warning' },
      { severity: 'warning', message: expect.stringContaining('[pci] device_spec') },
    ]);
  });
});
