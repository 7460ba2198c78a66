/** The error and exit code pages say what src/errors.ts says; UPDATE_DOCS=1 writes them anew. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  asError,
  asLastError,
  ERRORS,
  type ErrorCode,
  EXIT,
  HostdevError,
  isAbsent,
  isGone,
  orNull,
} from '../../../src/errors.ts';
import { pageTable as table } from '../../mock/pages.ts';
import { MEANING } from './exitMeanings.ts';

const MADE =
  '<!-- Made from src/errors.ts by test/unit/cli/errors.test.ts; to change it: UPDATE_DOCS=1 npx vitest run errors -->';

function errorsPage(): string {
  const rows = Object.entries(ERRORS).map(([code, e]) => [`\`${code}\``, e.exit, e.text, e.hint || '–']);
  return [
    `# Errors\n\n${MADE}\n\n`,
    'Every error has one of these codes. With `-j` it is `{"schema":1,"error":{"code","message","hint"}}` on stdout;\n',
    'the message names the device, the file and the errno, the hint says what to do next and is often more exact than\n',
    'the one here. The exit codes are explained in [exit-codes.md](exit-codes.md).\n\n',
    table(['Code', 'Exit', 'What it means', 'What to do'], rows),
  ].join('');
}

function exitCodesPage(): string {
  const rows = (Object.keys(EXIT) as (keyof typeof EXIT)[]).map((name) => {
    const codes = Object.entries(ERRORS).filter(([, e]) => e.exit === EXIT[name]);
    return [EXIT[name], MEANING[name], codes.map(([code]) => `\`${code}\``).join(', ') || '–'];
  });
  return [
    `# Exit codes\n\n${MADE}\n\n`,
    table(['Exit', 'Meaning', 'Errors'], rows),
    '\nWhen several apply, the first of 70, 130, 7, 2, 4, 6, 5, 9, 8, 3, 1 is given. An empty list is 0. A dry run exits as the real run\n',
    'would, as far as that can be known without writing: whoever may not make the change sees the plan, and 6. Of the hook only `prepare` and\n',
    '`start` exit with anything but 0.\n',
    '\n`status` is for everybody; without root the journal cannot be read, so it is 1 where it would be 0, and says so. `log` of an address is 4\n',
    'only if no such device is here and none is on record.\n',
    '\nWhat the hook would do for a domain is one answer (src/hook/preview.ts), and each door makes its own code of it. `hook run` and\n',
    '`hook test` exit with the code of the error that stops the guest; `domain check` with 3 for whatever would; `domain plan` with 5,\n',
    'when that concerns a device that is put in (what stood against the domain before is a warning). A group that would not be viable\n',
    "and a device that is absent are `domain plan`'s own answers, 3 and 4, because the plan itself can mend them. Whether libvirt runs\n",
    'the hook at all changes none of these codes, and is said.\n',
    '\n`vf create` of another number of VFs than a PF has is a refusal (5) without `--recreate`: the number changes through 0 only, and\n',
    'every VF goes with its binding, its settings, its vGPU type and its representor, which the refusal names (`plan.lost` of `-j`).\n',
    'As many as it has is 0, whatever they are on.\n',
  ].join('');
}

describe('reference pages', () => {
  test.each([
    ['docs/reference/errors.md', errorsPage()],
    ['docs/reference/exit-codes.md', exitCodesPage()],
  ])('%s is up to date', (file, text) => {
    if (process.env.UPDATE_DOCS) {
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, text);
    }
    expect(readFileSync(file, 'utf8')).toBe(text);
  });
});

describe('the table', () => {
  test.each(Object.entries(ERRORS))('%s is whole sentences and has a way on', (code, { text, hint, exit }) => {
    expect(code).toMatch(/^HOSTDEV_[A-Z_]+$/);
    expect(text).toMatch(/^[A-Z].*\.$/);
    // Only what the user asked for himself needs no hint.
    if (code !== 'HOSTDEV_INTERRUPTED') expect(hint).toMatch(/^[A-Z].*\.$/);
    expect(Object.values(EXIT)).toContain(exit);
    expect(exit).not.toBe(EXIT.done);
  });

  test('an error takes exit and hint from its row, unless it brings a better hint', () => {
    for (const code of Object.keys(ERRORS) as ErrorCode[]) {
      const e = new HostdevError(code, 'it');
      expect({ exit: e.exit, hint: e.hint, data: e.data }).toEqual({
        exit: ERRORS[code].exit,
        hint: ERRORS[code].hint,
        data: {},
      });
    }
    expect(new HostdevError('HOSTDEV_USAGE', 'it', { hint: 'do that' }).hint).toBe('do that');
  });
});

describe('an errno becomes an error in one way', () => {
  const raised = (code: string, more: object = {}): Error =>
    Object.assign(new Error(`${code}: raised`), { code, errno: -1, syscall: 'open', ...more });
  const ENDS: [errno: string, met: ErrorCode, last: ErrorCode, why: string][] = [
    ['EACCES', 'HOSTDEV_NOT_PERMITTED', 'HOSTDEV_NOT_PERMITTED', 'EACCES'],
    ['EPERM', 'HOSTDEV_NOT_PERMITTED', 'HOSTDEV_NOT_PERMITTED', 'EPERM'],
    ['ETIMEDOUT', 'HOSTDEV_TIMEOUT', 'HOSTDEV_TIMEOUT', 'no answer before the deadline'],
    ['EROFS', 'HOSTDEV_FILE_ABSENT', 'HOSTDEV_STORE', 'EROFS'],
    ['ENOSPC', 'HOSTDEV_FILE_ABSENT', 'HOSTDEV_STORE', 'ENOSPC'],
    ['EDQUOT', 'HOSTDEV_FILE_ABSENT', 'HOSTDEV_STORE', 'EDQUOT'],
    ['ENOENT', 'HOSTDEV_FILE_ABSENT', 'HOSTDEV_SYSFS', 'ENOENT'],
    ['EIO', 'HOSTDEV_FILE_ABSENT', 'HOSTDEV_SYSFS', 'EIO'],
  ];

  test.each(ENDS)('%s', (errno, met, last, why) => {
    const cause = raised(errno);
    const e = asError('Failed to read /x', cause, 'HOSTDEV_FILE_ABSENT', { hint: 'Look.', data: { a: 1 } });
    expect([e.code, e.message, e.cause, e.data]).toEqual([met, `Failed to read /x: ${why}`, cause, { a: 1 }]);
    // The hint of whoever meets it is not for what it is not about.
    expect(e.hint).toBe(met === 'HOSTDEV_FILE_ABSENT' ? 'Look.' : ERRORS[met].hint);
    expect([asLastError(cause).code, asLastError(cause).message]).toEqual([last, `${errno}: raised`]);
  });

  test('a full or read-only file system says what to do where nobody knows better', () => {
    expect(asError('Failed to write /x', raised('EROFS'), 'HOSTDEV_STORE').hint).toMatch(/read-only/);
    expect(asError('Failed to write /x', raised('ENOSPC'), 'HOSTDEV_STORE').hint).toMatch(/full/);
  });

  test('an error of ours stays; what is no errno says itself', () => {
    const ours = new HostdevError('HOSTDEV_IN_USE', 'it is in use');
    expect([asError('Failed', ours, 'HOSTDEV_STORE'), asLastError(ours)]).toEqual([ours, ours]);
    for (const thrown of [new TypeError('x is nothing'), 'x is nothing']) {
      expect(asError('Failed', thrown, 'HOSTDEV_STORE').message).toBe('Failed: x is nothing');
      expect([asLastError(thrown).code, asLastError(thrown).message]).toEqual(['HOSTDEV_INTERNAL', 'x is nothing']);
    }
  });

  test('absent, gone, or to be passed over', () => {
    const answers = ['ENOENT', 'ENOTDIR', 'ENODEV', 'ENXIO', 'EAGAIN', 'EIO', 'ETIMEDOUT'].map((errno) => [
      isAbsent(raised(errno)),
      isGone(raised(errno)),
    ]);
    const [both, gone, neither] = [
      [true, true],
      [false, true],
      [false, false],
    ];
    expect(answers).toEqual([both, both, gone, gone, neither, neither, neither]);
    const raise = (): never => {
      throw raised('EIO');
    };
    expect([orNull(() => 1), orNull(raise)]).toEqual([1, null]);
  });
});
