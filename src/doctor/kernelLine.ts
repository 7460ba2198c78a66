/**
 * Changes of the kernel command line, as checks ask for them: the line itself is made once all have spoken (settle.ts).
 */
import type { Directive } from '../host/modprobe.ts';
import { type CmdlineChange, merged } from './cmdlineWords.ts';
import { removeLine } from './initramfs.ts';
import type { Look } from './look.ts';
import type { Fix, KernelWords } from './table.ts';

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
