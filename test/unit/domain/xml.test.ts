import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeXml, parseXml } from '../../../src/domain/xml/parse.ts';
import { HostdevError } from '../../../src/errors.ts';
import { cpuMs } from '../../patience.ts';

/** What HOSTDEV_XML says, after the name of the input; anything else that is raised fails the test. */
function refusal(run: () => unknown): string {
  try {
    run();
  } catch (e) {
    if (e instanceof HostdevError && e.code === 'HOSTDEV_XML') return e.message.replace(/^in\.xml: /, '');
    throw e;
  }
  return 'accepted';
}

const parse = (text: string): string => refusal(() => parseXml(text, 'in.xml'));
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const content = (text: string): string | null | undefined => parseXml(text, 'in.xml').documentElement?.textContent;
const MI = 1024 * 1024;

describe('what is well-formed is taken', () => {
  test.each([
    '<a/>',
    '<?xml version="1.0" encoding="UTF-8"?>\n<!-- x --><a b=\'1\' c = "&quot;&#x41;&#65;"\n/>\n<!-- y -->\n<?p i?>\n',
    '<a xmlns:q="urn:q"><q:b q:c="1"/><![CDATA[<&]]></a >',
    '<a>]] > &amp;lt; é 漢 😀</a>',
    '<a __proto__="1" constructor="2"><toString/></a>',
  ])('%j', (text) => {
    expect(parse(text)).toBe('accepted');
  });

  test('nodes know their line and column', () => {
    const root = parseXml('<a>\r\n  <b c="1"/>\r\n</a>', 'in.xml').documentElement;
    const b = root?.getElementsByTagName('b').item(0);
    expect([b?.lineNumber, b?.columnNumber]).toEqual([2, 3]);
    expect(b?.getAttributeNode('c')?.lineNumber).toBe(2);
  });

  test('line ends become \\n, and nothing else does', () => {
    expect(content('<a>1\r\n2\r3\u20284</a>')).toBe('1\n2\n3\u20284');
  });

  test('the replacement character is a character', () => {
    expect(content('<a>\uFFFD</a>')).toBe('\uFFFD');
  });
});

describe('what is not well-formed is refused with its place', () => {
  test.each([
    ['', 'line 1, column 1: there is no element'],
    ['  \n ', 'line 2, column 2: there is no element'],
    ['<a>\n  <b>\n</a>', 'line 3, column 1: the end tag of a while <b> is open'],
    ['<a>\n<b>', 'line 2, column 4: the text ends while <b> is open'],
    ['</a>', 'line 1, column 1: the end tag of a while nothing is open'],
    ['<a/><b/>', 'line 1, column 5: a second root element'],
    ['<a/>\n x', 'line 2, column 2: text outside the root element'],
    ['x<a/>', 'line 1, column 1: text outside the root element'],
    ['<a/><![CDATA[]]>', 'line 1, column 5: text outside the root element'],
    ["<a b='1' b='2'/>", "line 1, column 9: the attribute 'b' is there twice"],
    ['<a b=1/>', 'line 1, column 3: the tag <a> is not well-formed here'],
    ['<a b/>', 'line 1, column 3: the tag <a> is not well-formed here'],
    ["<a b='1'c='2'/>", 'line 1, column 9: the tag <a> is not well-formed here'],
    ["<a b='<'/>", 'line 1, column 3: the tag <a> is not well-formed here'],
    ['<a / >', 'line 1, column 3: the tag <a> is not well-formed here'],
    ['<a', 'line 1, column 3: the tag <a> is not well-formed here'],
    ['<a>< b/></a>', 'line 1, column 4: a < that begins no tag'],
    ['<a></a x="1">', 'line 1, column 4: an end tag that is not well-formed'],
    ['<a>]]></a>', 'line 1, column 4: ]]> in text'],
    ['<a><!-- x -- y --></a>', 'line 1, column 11: -- inside a comment'],
    ['<a><!-- x </a>', 'line 1, column 4: a comment without an end'],
    ['<a><![CDATA[ x </a>', 'line 1, column 4: a CDATA section without an end'],
    ['<a><?p </a>', 'line 1, column 4: a processing instruction that is not well-formed'],
    [' <?xml version="1.0"?><a/>', 'line 1, column 2: an XML declaration that is not at the very start'],
    [
      '<?xml version="1.0"?><?XML version="1.0"?><a/>',
      'line 1, column 22: an XML declaration that is not at the very start',
    ],
    ['<?xml encoding="UTF-8"?><a/>', 'line 1, column 1: xml declaration is not well-formed'],
    [
      '<a:b/>',
      'line 1, column 1: Error constructing the DOM: NamespaceError: prefix is non-null and namespace is null',
    ],
    ['<1/>', 'line 1, column 1: element parse error: Error: invalid tagName:1'],
  ])('%j', (text, message) => {
    expect(parse(text)).toBe(message);
  });

  test.each(['&', '&amp', '&nbsp;', '&a b;', '&#;', '&#x;', '&#xg;', '& amp;'])('the reference %s', (reference) => {
    const reason = 'a bare & or an entity other than amp, lt, gt, quot and apos';
    expect(parse(`<a>\n ${reference}</a>`)).toBe(`line 2, column 2: ${reason}`);
    expect(parse(`<a\n b='c${reference}'/>`)).toBe(`line 2, column 6: ${reason}`);
  });

  test.each(['&#0;', '&#1;', '&#xB;', '&#xD800;', '&#xFFFF;', '&#x110000;', `&#${'9'.repeat(500)};`])(
    '%s',
    (reference) => {
      expect(parse(`<a>${reference}</a>`)).toContain('column 4: a reference to a character that XML does not allow');
    },
  );

  test.each(['\0', '\x01', '\x1b', '\uFFFE', '\uFFFF', '\uD800', '\uDC00', '\uDC00\uD800'])('the character %j', (c) => {
    for (const text of [`<a>${c}</a>`, `<a b='${c}'/>`, `<!--${c}--><a/>`, `<a/>${c}`, `${c}<a/>`]) {
      expect(parse(text)).toMatch(/^line 1, column \d+: the character U\+[0-9A-F]{4}, which XML does not allow$/);
    }
  });

  test('no message carries anything that a terminal obeys', () => {
    const names = fc.stringMatching(/^[\u0080-\u009f\u202e\u2066a-z]{1,300}$/);
    fc.assert(
      fc.property(names, (name) => {
        for (const text of [`<${name}><b></${name}>`, `<a${name}\x85/>`, `<a ${name}\x85=''/>`]) {
          expect(parse(text)).toMatch(/^line 1, [ -~]{1,300}$/);
        }
      }),
    );
  });
});

describe('no entity is ever expanded', () => {
  const reason = 'a DOCTYPE or entity declaration, which is not accepted';
  const laughs = Array.from({ length: 20 }, (_, i) => `<!ENTITY l${i + 1} "${`&l${i};`.repeat(20)}">`).join('\n');
  test.each([
    ['<!DOCTYPE a><a/>', 1, 1],
    ['<?xml version="1.0"?>\n<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', 2, 1],
    ['<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', 1, 1],
    [`<!-- --> <!DOCTYPE a [<!ENTITY l0 "ha">${laughs}]><a>&l20;</a>`, 1, 10],
    ['<a><!DOCTYPE a></a>', 1, 4],
    ['<!ENTITY x "y"><a/>', 1, 1],
    ['<!doctype a><a/>', 1, 1],
  ])('%.40s', (text, line, column) => {
    expect(parse(text)).toBe(`line ${line}, column ${column}: ${reason}`);
  });

  test('the words are harmless inside comments, CDATA and attributes', () => {
    expect(content("<a b='!DOCTYPE'><!-- <!DOCTYPE a> --><![CDATA[<!ENTITY x>]]></a>")).toBe('<!ENTITY x>');
  });
});

describe('bounds', () => {
  test('256 levels, not 257', () => {
    expect(parse('<a>'.repeat(256) + '</a>'.repeat(256))).toBe('accepted');
    expect(parse('<a>'.repeat(257) + '</a>'.repeat(257))).toBe('line 1, column 769: more than 256 elements deep');
    expect(parse('<a>'.repeat(1e6))).toBe('line 1, column 769: more than 256 elements deep');
  });

  test('256 attributes, not 257', () => {
    const tag = (n: number) => `<a${Array.from({ length: n }, (_, i) => ` a${i}=''`).join('')}/>`;
    expect(parse(tag(256))).toBe('accepted');
    expect(parse(tag(257))).toContain('more than 256 attributes');
  });

  test('16 Mi characters, not one more', () => {
    const fill = 'x'.repeat(16 * MI - 7);
    expect(parse(`<a>${fill}</a>`)).toBe('accepted');
    expect(parse(`<a>x${fill}</a>`)).toBe('more than 16777216 characters of XML are not read');
    const big = bytes(`<a>x${fill}</a>`);
    expect(refusal(() => decodeXml(big, 'in.xml'))).toBe('more than 16777216 characters of XML are not read');
    const huge = new Uint8Array(48 * MI + 1).fill(0x20);
    expect(refusal(() => decodeXml(huge, 'in.xml'))).toContain('more than 16777216');
  });

  test('a comment of any length is a clear answer', () => {
    const comment = (n: number) => parse(`<a><!--${'x'.repeat(n)}--></a>`);
    expect(comment(MI - 10)).toBe('accepted');
    expect(comment(10 * MI)).toBe('line 1, column 4: a comment of more than 1048576 characters');
    expect(parse(`<a><?p ${'x'.repeat(10 * MI)}?></a>`)).toContain('an instruction of more than');
  });

  test('the time grows with the length and not with its square', () => {
    const time = (n: number) => {
      const text = `<a>${"<b c='&amp;'>d</b><!--e-->\n".repeat(n)}</a>`;
      const start = cpuMs();
      expect(parse(text)).toBe('accepted');
      return cpuMs() - start;
    };
    time(2000);
    // A quadratic walk would take 256 times as long.
    expect(time(64000)).toBeLessThan(Math.max(200, time(4000) * 100));
  });
});

describe('decodeXml', () => {
  test('takes UTF-8 with and without its mark', () => {
    expect(decodeXml(bytes('<a>é</a>'), 'in.xml')).toBe('<a>é</a>');
    expect(decodeXml(bytes('\uFEFF<a>é</a>'), 'in.xml')).toBe('<a>é</a>');
    expect(parse(decodeXml(bytes('\uFEFF\uFEFF<a/>'), 'in.xml'))).toContain('a byte order mark where');
  });

  test.each(['UTF-8', 'utf-8', 'utf8', 'US-ASCII', 'us-ascii'])('takes the declaration %s', (name) => {
    const text = `<?xml version='1.0' encoding='${name}'?><a/>`;
    expect(parse(decodeXml(bytes(text), 'in.xml'))).toBe('accepted');
  });

  test.each(['UTF-16', 'ISO-8859-1', 'latin1', 'UTF-7', 'UTF-32BE', ''])('refuses the declaration %j', (name) => {
    const text = `<?xml version="1.0"\n encoding = "${name}"?><a/>`;
    const message = `line 1, column 1: the encoding '${name}' is declared; only UTF-8 and US-ASCII are read`;
    expect(refusal(() => decodeXml(bytes(text), 'in.xml'))).toBe(message);
    expect(parse(text)).toBe(message);
    expect(parse(text.replace('\n', '\r\n'))).toBe(message);
  });

  test.each([
    [[0xff, 0xfe, 0x3c, 0]],
    [[0xfe, 0xff, 0, 0x3c]],
    [[0x3c, 0, 0x61, 0]],
    [[0, 0x3c, 0, 0x61]],
    [[0, 0, 0xfe, 0xff]],
  ])('refuses UTF-16 and UTF-32: %j', (raw) => {
    expect(refusal(() => decodeXml(Uint8Array.from(raw), 'in.xml'))).toContain('this is UTF-16 or UTF-32');
  });

  test.each([[[0xe9]], [[0xc0, 0xaf]], [[0xed, 0xa0, 0x80]], [[0xf5, 0x80, 0x80, 0x80]], [[0xe2, 0x82]]])(
    'refuses bytes that are no UTF-8: %j',
    (raw) => {
      const input = Uint8Array.from([...bytes('<a>\n '), ...raw]);
      expect(refusal(() => decodeXml(input, 'in.xml'))).toBe('line 2, column 2: bytes that are no UTF-8');
    },
  );

  test('any bytes at all are text or HOSTDEV_XML', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (raw) => {
        refusal(() => parseXml(decodeXml(raw, 'in.xml'), 'in.xml'));
      }),
    );
  });
});

test('any text made of the pieces of XML is a document or HOSTDEV_XML', () => {
  const piece = fc.constantFrom(
    ...[
      '<a>',
      '</a>',
      '<a/>',
      '<a b="c"',
      " d='e'",
      '>',
      '/>',
      '<',
      '&',
      '&amp;',
      '&#x',
      ';',
      '"',
      "'",
      '=',
      '<!--',
      '-->',
      '--',
    ],
    ...[
      '<![CDATA[',
      ']]>',
      '<?xml version="1.0"?>',
      '<?p',
      '?>',
      '<!DOCTYPE a [',
      ']',
      '<!ENTITY',
      ' ',
      '\n',
      '\r',
      'x',
      ':',
    ],
    ...['xmlns=""', ' xmlns:a="u"', '<a:b', '</a:b>', '\0', '\uD800', '\uFEFF', '\uFFFD', '😀'],
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
      parse(pieces.join(''));
    }),
    { numRuns: 3000 },
  );
});
