/**
 * The kernel command line as all findings together want it. A check says which words are to come and go; the line is made once all checks have spoken, so that the
 * line of one finding never undoes that of another.
 */
import type { Directive } from '../host/modprobe.ts';
import { cmdlineFix } from './cmdline.ts';
import { type CmdlineChange, merged } from './cmdlineWords.ts';
import { removeLine } from './initramfs.ts';
import type { Look } from './look.ts';
import type { Draft, Finding, Fix, KernelWords } from './table.ts';

/** A change of the kernel command line, as a check gives it; one of nothing is none. */
export function kernelWords(change: CmdlineChange): KernelWords[] {
  const { add, remove, replace } = merged([change]);
  return add.length + remove.length + replace.length === 0 ? [] : [{ cmdline: change }];
}

/** Takes a directive out, from wherever it stands; of a list on the command line only what it is about. */
export function removeDirective(look: Look, d: Directive): (Fix | KernelWords)[] {
  if (d.file !== look.host.cmdline) return [removeLine(look, d)];
  const [, head = '', list = ''] = d.kind === 'blacklist' ? (/^([^=]*=)(.*)$/.exec(d.text) ?? []) : [];
  const others = list.split(',').filter((m) => m !== '' && m.replaceAll('-', '_') !== d.module);
  return kernelWords(
    others.length > 0 ? { replace: [{ word: d.text, by: head + others.join(',') }] } : { remove: [d.text] },
  );
}

const isWords = (fix: Fix | KernelWords): fix is KernelWords => 'cmdline' in fix;

/**
 * The findings with the one kernel line in place of each wish for words of it.
 * @returns The same findings in the same order. Where several want something of the line, each has the same fix, and what follows it says whose changes it has.
 */
export function settled(look: Look, drafts: readonly Draft[]): Finding[] {
  const asking = drafts.filter((d) => d.fix.some(isWords));
  const changes = asking.flatMap((d) => d.fix.filter(isWords).map((f) => f.cmdline));
  const ids = [...new Set(asking.map((d) => d.id))];
  const line = changes.length === 0 ? [] : cmdlineFix(look, merged(changes));
  const shared = asking.length < 2 ? line : line.map((f) => withAll(f, ids));
  return drafts.map((d) => {
    const at = d.fix.findIndex(isWords);
    const own = d.fix.filter((f): f is Fix => !isWords(f));
    return { ...d, fix: at < 0 ? own : [...own.slice(0, at), ...shared, ...own.slice(at)] };
  });
}

const withAll = (fix: Fix, ids: readonly string[]): Fix => ({
  ...fix,
  after: `${fix.after ?? 'reboot'} (this has all changes of the kernel command line: ${ids.join(', ')})`,
});
