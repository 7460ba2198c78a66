/** What of a device libvirt kept, and by which element a domain has it. */
import { expect, test } from 'vitest';
import { nicElement } from '../../../src/domain/device/nic.ts';
import { dropped, ownAlias, pluggedElements, withAlias } from '../../../src/domain/device/plugged.ts';
import { readDomain } from '../../../src/domain/xml/domain.ts';
import { formatXml } from '../../../src/domain/xml/write.ts';

const A = '0000:21:10.0';
const passed = { address: A, managed: false, model: null, rom: null, boot: 2 };
const nic = (shape: 'direct' | 'macvtap') =>
  withAlias(nicElement({ shape, mac: '52:54:00:00:00:01', vlan: 5, profile: null, hostNode: 'eth0' }, passed), A);
const domain = (xml: string) => readDomain(`<domain type='kvm'><name>g</name><devices>${xml}</devices></domain>`, 'g');

test('an alias that libvirt keeps: it begins with ua-, and has letters, digits, - and _ only', () => {
  expect(ownAlias(A)).toBe('ua-hostdev-0000-21-10-0');
});

test.each(['direct', 'macvtap'] as const)(
  '%s: all that was given is found again, what is missing is named',
  (shape) => {
    const wanted = nic(shape);
    const text = formatXml(wanted, null);
    const seen = (xml: string): string[] => {
      const element = pluggedElements(domain(xml)).get(A);
      return element === undefined ? ['nothing'] : dropped(wanted, element);
    };
    expect(seen(text)).toEqual([]);
    // libvirt leaves managed='no' out of an interface, and adds what it likes.
    expect(
      seen(text.replace(" managed='no'", '').replace('</interface>', "<model type='virtio'/></interface>")),
    ).toEqual([]);
    expect(seen(text.replace("<tag id='5'/>", ''))).toEqual(['vlan/tag']);
    expect(seen(text.replace("id='5'", "id='6'"))).toEqual(["vlan/tag/id='5'"]);
    expect(seen(text.replace(/<boot[^>]*>/, ''))).toEqual(['boot']);
    expect(seen(text.replace(/<alias[^>]*>/, ''))).toEqual(shape === 'direct' ? ['alias'] : ['nothing']);
  },
);

test('an alias of others, or one that names no address, is nothing of ours', () => {
  for (const alias of ['hostdev0', 'ua-hostdev-x', 'ua-hostdev-0000-21-10-9', 'ua-other-0000-21-10-0'])
    expect(pluggedElements(domain(`<interface type='direct'><alias name='${alias}'/></interface>`)).size).toBe(0);
});
