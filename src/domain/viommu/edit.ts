/** A vIOMMU put into a domain's XML, with what it needs elsewhere, or taken out. */
import type { Element } from '@xmldom/xmldom';
import { child, children } from '../xml/dom.ts';
import { type Domain, edited } from '../xml/domain.ts';
import { insertIntoSection, removeElements, replaceElement } from '../xml/edit.ts';
import type { XmlElement } from '../xml/write.ts';
import type { Need, ViommuSuggestion } from './suggest.ts';

/** libvirt writes `<features>` behind these. */
const BEFORE_FEATURES = ['vcpu', 'numatune', 'resource', 'sysinfo', 'bootloader', 'os', 'idmap', 'name'];

const iommus = (root: Element): Element[] => children(root, 'devices').flatMap((d) => children(d, 'iommu'));

/**
 * True when an element has every attribute and child that is wanted, with these values; what it has besides is its own
 * matter.
 */
function satisfies(element: Element, wanted: XmlElement): boolean {
  const same = Object.entries(wanted.attributes ?? {}).every(([k, v]) => element.getAttribute(k) === v);
  return (
    same &&
    (wanted.children ?? []).every((w) => {
      const c = child(element, w.name);
      return c !== undefined && satisfies(c, w);
    })
  );
}

/** Takes every `<iommu>` out. */
export function removeViommu(domain: Domain): Domain {
  let now = domain;
  for (let more = true; more; ) {
    now = edited(now, (source) => {
      const [first, ...others] = iommus(source.root);
      more = others.length > 0;
      return first ? removeElements(source, [first]) : source.text;
    });
  }
  return now;
}

/**
 * Puts a suggested vIOMMU into a domain: one that is like it stays, another is replaced in its place, and several make
 * room for it. What the suggestion needs elsewhere is put there too.
 */
export function setViommu(domain: Domain, { element, needs }: ViommuSuggestion): Domain {
  const several = iommus(domain.root).length > 1;
  const withElement = edited(several ? removeViommu(domain) : domain, (source) => {
    const [first] = iommus(source.root);
    if (!first) return insertIntoSection(source, 'devices', [element]);
    return satisfies(first, element) ? source.text : replaceElement(source, first, element);
  });
  return needs.reduce(addNeed, withElement);
}

function addNeed(domain: Domain, { path, element }: Need): Domain {
  const section = path[0] ?? '';
  return edited(domain, (source) => {
    const parent = child(source.root, section);
    const old = parent && child(parent, element.name);
    if (!old) return insertIntoSection(source, section, [element], BEFORE_FEATURES);
    const kept = Object.fromEntries([...old.attributes].map((a) => [a.name, a.value]));
    return replaceElement(source, old, { ...element, attributes: { ...kept, ...element.attributes } });
  });
}
