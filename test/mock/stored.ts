/**
 * Whether a libvirt that took an XML kept all of it: what it does not know it drops without a word, unless it
 * validates.
 */
import type { Element } from '@xmldom/xmldom';
import { child, children } from '../../src/domain/xml/dom.ts';
import { parseXml } from '../../src/domain/xml/parse.ts';

const elements = (parent: Element): Element[] =>
  [...parent.childNodes].filter((n): n is Element => n.nodeType === n.ELEMENT_NODE);

/** libvirt writes its numbers its own way: 0x0b for 11, 0x0 for 00. */
const value = (text: string): string => (/^(0x[0-9a-f]+|\d+)$/i.test(text) ? `${Number(text)}` : text);

/** What `stored` lacks of `asked`, as paths; what it has besides are libvirt's own defaults. */
function dropped(asked: Element, stored: Element | undefined, path = `<${asked.nodeName}>`): string[] {
  if (!stored) return [path];
  const attributes = [...asked.attributes].filter(
    (a) => !a.name.startsWith('xmlns') && value(a.value) !== value(stored.getAttribute(a.name) ?? '\0'),
  );
  const missing = attributes.map((a) => `${path} ${a.name}='${a.value}'`);
  for (const c of elements(asked)) {
    const found = elements(stored).filter((s) => s.nodeName === c.nodeName);
    const verdicts = found.map((s) => dropped(c, s, `${path}<${c.nodeName}>`));
    const best = verdicts.sort((a, b) => a.length - b.length)[0];
    missing.push(...(best ?? [`${path}<${c.nodeName}>`]));
  }
  return missing;
}

/** {@link dropped} for the devices and features of two domains; other sections are whoever's who wrote them. */
export function droppedFromDomain(asked: string, stored: string): string[] {
  const [a, s] = [asked, stored].map((t) => parseXml(t, 'domain').documentElement);
  if (!a || !s) return ['<domain>'];
  const missing: string[] = [];
  for (const kind of ['hostdev', 'interface', 'iommu']) {
    const [mine, theirs] = [a, s].map((r) => children(r, 'devices').flatMap((d) => children(d, kind)));
    for (const e of mine ?? []) {
      const verdicts = (theirs ?? []).map((t) => dropped(e, t)).sort((x, y) => x.length - y.length);
      missing.push(...(verdicts[0] ?? [`<${kind}>`]));
    }
  }
  const features = child(a, 'features');
  return features ? [...missing, ...dropped(features, child(s, 'features'))] : missing;
}
