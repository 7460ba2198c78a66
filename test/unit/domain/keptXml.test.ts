/** What counts as a difference between a domain and what libvirt made of it, and what is another way to write it. */
import { expect, test } from 'vitest';
import { differences } from '../../../src/domain/keptXml.ts';
import { readDomain } from '../../../src/domain/xml/domain.ts';

const found = (asked: string, kept: string) =>
  differences(
    readDomain(`<domain>${asked}</domain>`, 'asked'),
    readDomain(`<domain type='kvm' id='3'>${kept}</domain>`, 'kept'),
  ).map(({ ours, where, attribute, asked: was, kept: is }) => [ours, where.replace(/ .*/, ''), attribute, was, is]);

const hostdev = (address: string, more = ''): string =>
  `<hostdev mode='subsystem' type='pci' managed='yes'><source><address ${address}/></source>${more}</hostdev>`;

test.each([
  ['nothing', '', '<uuid>x</uuid>'],
  ['another unit', "<memory unit='GiB'>4</memory>", "<memory unit='KiB'>4194304</memory>"],
  ['no unit is KiB', '<memory>4</memory>', "<memory unit='KiB'>4</memory>"],
  ['blanks', '<name> g\n</name>', '<name>g</name>'],
  ['a UUID', '<uuid>624392BD97844E208B291E85F123C67D</uuid>', '<uuid>624392bd-9784-4e20-8b29-1e85f123c67d</uuid>'],
  [
    'hex and decimal',
    hostdev("bus='33' slot='0x0' function='1'"),
    hostdev("domain='0x0000' bus='0x21' slot='0x00' function='0x1'"),
  ],
  ["type='pci' of a source", hostdev("type='pci' bus='1'"), hostdev("bus='0x01'")],
  ["libvirt's own alias", hostdev("bus='1'", "<alias name='hostdev0'/>"), hostdev("bus='0x01'")],
  ['another order', hostdev("bus='1'") + hostdev("bus='2'"), hostdev("bus='2'") + hostdev("bus='1'")],
])('no difference: %s', (_what, asked, kept) => {
  expect(found(asked, kept)).toEqual([]);
});

test('the one that is missing of several is named, and no other', () => {
  const all = [1, 2, 3].map((n) => hostdev(`bus='${n}'`));
  expect(found(`<devices>${all.join('')}</devices>`, `<devices>${all[2]}${all[0]}</devices>`)).toEqual([
    [true, 'hostdev', null, '<hostdev>', null],
  ]);
});

test('an attribute, a value, a text, an element; ours and not', () => {
  expect(
    found(
      "<vcpu current='2'>4</vcpu><iommu model='amd'><driver xtsup='on' eim='on'/></iommu><sound model='ich9'/>",
      "<vcpu>5</vcpu><iommu model='amd'><driver eim='off'/></iommu>",
    ),
  ).toEqual([
    [false, 'vcpu', 'current', '2', null],
    [false, 'vcpu', null, '4', '5'],
    [true, 'driver', 'xtsup', 'on', null],
    [true, 'driver', 'eim', 'on', 'off'],
    [false, 'sound', null, '<sound>', null],
  ]);
});

test('what libvirt says is made safe', () => {
  const [row] = found('<title>a</title>', '<title>b&#x9b;31m</title>');
  expect(row?.[4]).not.toContain('\u009b');
});
