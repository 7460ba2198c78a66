/** What the packages promise and can be seen without building them. */
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { nativeExecutable } from '../../../src/addon/load.ts';

const text = (file: string): string => readFileSync(file, 'utf8');

test('the decision says which Node is pinned', () => {
  const page = text('docs/decisions/0019-packages.md');
  const pins = [...text('tools/node.mjs').matchAll(/(?:version|tarball|binary): '([^']+)'/g)].map(
    ([, pin = '']) => pin,
  );
  expect(pins).toHaveLength(3);
  for (const pin of pins) expect(page).toContain(`| ${pin} |`);
});

test('the hook takes the nodes that /usr/bin/hostdev takes, in its order', () => {
  const [, wrapper = ''] = /^for node in (.*); do$/m.exec(text('debian/hostdev.sh')) ?? [];
  const [, list = ''] = /nodes: \[([^\]]*)\]/.exec(text('src/hook/program.ts')) ?? [];
  expect([...list.matchAll(/'([^']+)'/g)].map(([, node]) => node)).toEqual(wrapper.split(' '));
  expect(wrapper.split(' ')[0]).toBe('/usr/bin/hostdev-node');
});

test('no dependency is left to a registry', () => {
  const manifest = JSON.parse(text('package.json'));
  expect([manifest.dependencies, manifest.optionalDependencies]).toEqual([undefined, undefined]);
});

test('the addon asks for no glibc that Ubuntu 22.04 or RHEL 9 has not', () => {
  const file = nativeExecutable().replace(/hostdev-native$/, 'hostdev.node');
  expect(existsSync(file)).toBe(true);
  const minors = [...readFileSync(file, 'latin1').matchAll(/\0GLIBC_2\.(\d+)/g)].map(([, minor]) => Number(minor));
  expect(minors.length).toBeGreaterThan(3);
  expect(Math.max(...minors)).toBeLessThanOrEqual(34);
});
