/** Values of attributes that both libvirt's schema and its parser take: the two do not read numbers alike. */
import type { Element } from '@xmldom/xmldom';

export const ON_OFF = /^(on|off)$/;
export const YES_NO = /^(yes|no)$/;
/** `managed` of a host device: its parser passes over what it does not know (virDomainHostdevDefParseXMLSubsys ignore_value), so the schema alone judges. */
export const MANAGED = /^[ \t\r\n]*(yes|no)[ \t\r\n]*$/;
export const ANY = /^/;
/** xsd:int up to 255, and virStrToLong_uip to base 10: blanks may precede the digits and not follow them. */
export const UINT8 = /^\s*\+?0*(25[0-5]|2[0-4]\d|1?\d?\d)$/;
export const UINT32 = /^\s*\+?\d{1,10}$/;
/** From 1 to 4294967295. */
export const DECIMAL_32 =
  '[1-9]\\d{0,8}|[1-3]\\d{9}|4[01]\\d{8}|42[0-8]\\d{7}|429[0-3]\\d{6}|4294[0-8]\\d{5}|42949[0-5]\\d{4}|429496[0-6]\\d{3}|4294967[01]\\d{2}|42949672[0-8]\\d|429496729[0-5]';
/** Up to 255, and what is up to 255 to the schema and octal to the parser. */
export const DECIMAL_8 = '25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]\\d?';
export const OCTAL_8 = '0*(?:[0-7]{0,2}|1[0-7]{2}|2[0-4][0-7]|25[0-5])';
/**
 * A number that both take: xsd:int (of a domain xsd:unsignedInt, which has no sign) or the schema's hex pattern, and virStrToLong_uip to base 0, for which a leading 0
 * means octal. Blanks before it are taken, behind it not.
 */
export const number = (hex: string, octal: string, decimal: string, sign = '\\+?'): RegExp =>
  new RegExp(`^(?:0x${hex}|[ \\t\\r\\n]*${sign}(?:0(?:${octal})|${decimal}))$`);
export const PCI_ADDRESS: Record<string, RegExp> = {
  domain: number('[0-9a-fA-F]{1,8}', '0*(?:[0-7]{0,9}|[1-3][0-7]{9}|4[01][0-7]{8})', DECIMAL_32, ''),
  bus: number('[0-9a-fA-F]{1,2}', OCTAL_8, DECIMAL_8),
  slot: number('[01]?[0-9a-fA-F]', '0*(?:[0-2]?[0-7]|30|31)?', '(3[01]|[12]\\d|[1-9])'),
  function: number('[0-7]', '0*[0-7]?', '[1-7]'),
  multifunction: ON_OFF,
};

/** A part of a PCI address as libvirt reads it; 0 when it is left out, null for what {@link PCI_ADDRESS} refuses. */
export function addressPart(e: Element, name: 'domain' | 'bus' | 'slot' | 'function'): number | null {
  const text = e.getAttribute(name) ?? '0';
  if (!PCI_ADDRESS[name]?.test(text)) return null;
  return /^\s*\+?0[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number(text);
}
