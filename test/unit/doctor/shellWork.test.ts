/**
 * What is taken out of a script that moves devices: all of it, and what is left is a script still, as bash itself reads
 * it.
 */
import { spawnSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MOVES, workOf } from '../../../src/doctor/shellWork.ts';

/** The script without what was taken out; null where it cannot be told apart. */
function left(text: string): string | null {
  const taken = workOf(text);
  if (taken === null) return null;
  const lines = text.split('\n');
  for (const t of taken) lines.splice(t.first - 1, t.last - t.first + 1, ...t.lines);
  return lines.join('\n');
}

const parses = (text: string): boolean => spawnSync('bash', ['-n'], { input: text }).status === 0;

/** Lines that do something: neither comments nor empty. */
const acting = (text: string | null): string[] =>
  (text ?? '')
    .split('\n')
    .map((l) => l.trim())
    .filter((l) => l !== '' && !l.startsWith('#'));

const BIND = 'echo vfio-pci > /sys/bus/pci/devices/$1/driver_override';

test.each<[string, string, string[]]>([
  [
    "the charm guide's: a function and its calls",
    `vfiobind() {
    dev="$1"
    vendor=$(cat /sys/bus/pci/devices/$dev/vendor)
    if [ -e /sys/bus/pci/devices/$dev/driver ]; then
            echo $dev > /sys/bus/pci/devices/$dev/driver/unbind
    fi
    echo $vendor $device > /sys/bus/pci/drivers/vfio-pci/new_id
}
vfiobind 0000:83:00.0
vfiobind 0000:84:00.0
/usr/local/bin/mine &
exit 0`,
    ['/usr/local/bin/mine &', 'exit 0'],
  ],
  [
    'a loop, its list and its module, and nothing else',
    `#!/bin/sh -e
DEVS="0000:0a:00.0 0000:0a:00.1"
MINE=1
modprobe -i vfio-pci
modprobe kvm_intel nested=1
for d in $DEVS; do
  echo vfio-pci > /sys/bus/pci/devices/$d/driver_override
  if [ -n "$MINE" ]
  then
    echo "bound $d"
  fi
done
echo $MINE > /tmp/mine`,
    ['MINE=1', 'modprobe kvm_intel nested=1', 'echo $MINE > /tmp/mine'],
  ],
  [
    'a function that does something else too keeps that',
    `start() {
  ip link set eth0 up
  ${BIND}
}
start 0000:01:00.0`,
    [
      'start() {',
      'ip link set eth0 up',
      ': #   echo vfio-pci > /sys/bus/pci/devices/$1/driver_override',
      '}',
      'start 0000:01:00.0',
    ],
  ],
  [
    'a function of one line, one with its brace below, calls behind conditions and in loops',
    `one() { echo $1 > /sys/bus/pci/drivers/vfio-pci/bind; }
function two
{
  one "$1"
}
[ -e /x ] && one 0000:01:00.0
if two 0000:01:00.1; then
  :
fi
while read -r d; do two "$d"; done < /etc/list
touch /tmp/done`,
    ['touch /tmp/done'],
  ],
  [
    'one branch of two: the other stays',
    `if [ "$1" = a ]; then
  ${BIND}
else
  touch /tmp/b
fi`,
    ['if [ "$1" = a ]; then', `: #   ${BIND}`, 'else', 'touch /tmp/b', 'fi'],
  ],
  [
    'the clauses of a case keep their patterns and ends',
    `case "$2" in
  prepare) virsh nodedev-detach pci_0000_01_00_0 ;;
  release)
    virsh nodedev-reattach pci_0000_01_00_0
    systemctl start gdm ;;
esac`,
    [
      'case "$2" in',
      'prepare) ;; #   prepare) virsh nodedev-detach pci_0000_01_00_0 ;;',
      'release)',
      ': #     virsh nodedev-reattach pci_0000_01_00_0',
      'systemctl start gdm ;;',
      'esac',
    ],
  ],
  [
    'a command over several lines, a here-document and quotes that only look so',
    `echo 10de 1bb0 > \\
  /sys/bus/pci/drivers/vfio-pci/new_id
cat <<EOF > /etc/motd
echo 1 > new_id is text; done }
EOF
echo "a quoted
done }" # fi
touch /tmp/x`,
    [
      'cat <<EOF > /etc/motd',
      'echo 1 > new_id is text; done }',
      'EOF',
      'echo "a quoted',
      'done }" # fi',
      'touch /tmp/x',
    ],
  ],
])('%s', (_name, text, rest) => {
  expect(parses(text)).toBe(true);
  const now = left(text);
  expect(acting(now)).toEqual(rest);
  expect(parses(now ?? '(')).toBe(true);
});

test('what moves no device is left alone, and what is no shell is told', () => {
  for (const text of [
    'echo 0 > /sys/class/vtconsole/vtcon0/bind\n',
    'echo efi-framebuffer.0 > /sys/bus/platform/drivers/efi-framebuffer/unbind\n',
    '# echo 1 > new_id\nmount --bind /a /b\n',
    '',
  ])
    expect(workOf(text)).toEqual([]);
  for (const text of ['}\nnew_id\n', 'if x\nnew_id\n', 'echo "new_id\n', 'cat <<EOF\nnew_id\n', 'f() (\nnew_id\n)\n'])
    expect(workOf(text)).toBe(null);
});

test.each([
  '#',
  'a#',
  'a=a=',
  'modprobe vfio a=a=',
  '\\\\',
  '"',
  'x "\n',
  '|a',
  'f() {\n',
  'f() { new_id; }\nf\n',
  'if new_id\nthen\nfi\n',
  'a=1 new_id $a\n',
  'case x in a) new_id ;;\nesac\n',
  '<<A ',
])('256 KiB of %j come to an end', (piece) => {
  const text = piece.repeat(Math.ceil((256 * 1024) / piece.length));
  const taken = workOf(text);
  expect(taken === null || Array.isArray(taken)).toBe(true);
  // As many lines as are read.
  const lines = piece.endsWith('\n') ? workOf(piece.repeat(1000)) : [];
  expect(lines === null || Array.isArray(lines)).toBe(true);
});

describe('any script of these pieces', () => {
  const simple = fc.constantFrom(
    'touch /tmp/a',
    'local x=$(cat /proc/cmdline | tr a b)',
    'echo "it is $x; done"',
    'y=1 # fi',
    '[ -e "$y" ] || return 0',
    BIND,
    'echo "$d" > /sys/bus/pci/drivers/vfio-pci/new_id; sleep 1',
    'f 0000:01:00.0',
    '[ -n "$x" ] && g "$x" || true',
    'modprobe vfio-pci',
    'printf "%s" a >&2',
  );
  const { script } = fc.letrec<{ script: string; node: string }>((tie) => ({
    script: fc.array(tie('node'), { minLength: 1, maxLength: 4 }).map((n) => n.join('\n')),
    node: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      simple,
      tie('script').map((s) => `if [ -e "$x" ]; then\n${s}\nfi`),
      fc.tuple(tie('script'), tie('script')).map(([a, b]) => `if [ -e "$x" ]\nthen\n${a}\nelse\n${b}\nfi`),
      tie('script').map((s) => `for d in a b; do\n${s}\ndone`),
      tie('script').map((s) => `while read -r d\ndo\n${s}\ndone < /tmp/x`),
      tie('script').map((s) => `f() {\n${s}\n}`),
      tie('script').map((s) => `function g\n{\n${s}\n}`),
      fc.tuple(tie('script'), tie('script')).map(([a, b]) => `case "$x" in\na|b)\n${a}\n;;\n*)\n${b}\nesac`),
      simple.map((s) => `case "$x" in\n  a) ${s} ;;\n  *) touch /tmp/c;;\nesac`),
    ),
  }));

  test('is a script still, and moves no device by a line of its own', () => {
    fc.assert(
      fc.property(script, (text) => {
        fc.pre(parses(text));
        const now = left(text);
        expect(now).not.toBe(null);
        expect(parses(now ?? '(')).toBe(true);
        for (const line of acting(now)) expect(line.replace(/(?<!["\w])#.*/, '')).not.toMatch(MOVES);
        // A second look finds no more: calls of what is gone are gone too.
        expect(workOf(now ?? '')).toEqual([]);
      }),
      { numRuns: 150 },
    );
  });
});
