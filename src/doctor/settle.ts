/**
 * What is decided only once all checks have spoken: the one kernel line, so that the line of one finding never undoes
 * that of another; and which of the devices that are to be bound the host can do without.
 */
import type { Usage } from '../binding/guards.ts';
import type { Address } from '../pci/address.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { ofBootDisplay } from './bootDisplay.ts';
import { cmdlineFix } from './cmdline.ts';
import { merged } from './cmdlineWords.ts';
import { bindFix } from './fix.ts';
import type { Look } from './look.ts';
import {
  type BindWish,
  type Draft,
  FINDINGS,
  type Finding,
  type FindingId,
  type Fix,
  type KernelWords,
} from './table.ts';

type Advice = Draft['fix'][number];
const isWords = (fix: Advice): fix is KernelWords => 'cmdline' in fix;
const isBind = (fix: Advice): fix is BindWish => 'bind' in fix;

/** How many devices a command names. */
const NAMED = 8;

/** The devices that findings want bound, each once. */
export const toBind = (drafts: readonly Draft[]): PciDevice[] => [
  ...new Set(drafts.flatMap((d) => d.fix.filter(isBind).flatMap((f) => f.bind))),
];

/**
 * The findings with the one kernel line in place of each wish for words of it, and commands in place of wishes to bind.
 * @param usages What the guards find of the devices that are to be bound; bind would refuse those.
 * @returns The same findings in the same order. Where several want something of the line, each has the same fix, and
 * what follows it says whose changes it has.
 */
export function settled(look: Look, drafts: readonly Draft[], usages: ReadonlyMap<Address, Usage>): Finding[] {
  const asking = drafts.filter((d) => d.fix.some(isWords));
  const changes = asking.flatMap((d) => d.fix.filter(isWords).map((f) => f.cmdline));
  const ids = [...new Set(asking.map((d) => d.id))];
  const line = changes.length === 0 ? [] : cmdlineFix(look, merged(changes));
  const shared = asking.length < 2 ? line : line.map((f) => withAll(f, ids));
  return drafts.map((d) => {
    const first = d.fix.find(isWords);
    return {
      ...d,
      fix: d.fix.flatMap((f): Fix[] => {
        if (isWords(f)) return f === first ? shared : [];
        return isBind(f) ? bound(look, f, usages) : [f];
      }),
    };
  });
}

/** What an admin may have wanted as it is: taking it along is for them to say. */
const isChoice = (id: FindingId): boolean => FINDINGS[id].severity === 'note' || CHOICES.includes(id);
const CHOICES: readonly FindingId[] = ['acs-override', 'lockdown-confidentiality'];

function withAll(fix: Fix, ids: readonly FindingId[]): Fix {
  const choices = ids.filter(isChoice);
  const may = choices.length === 0 ? '' : `; what is for ${choices.join(', ')} you may leave as it is`;
  return {
    ...fix,
    after: `${fix.after ?? 'reboot'} (this has all changes of the kernel command line: ${ids.join(', ')}${may})`,
  };
}

/**
 * Binds those of the devices that the host can do without: never the boot display and what goes with it, nor what a
 * guard keeps.
 */
function bound(look: Look, { bind, when }: BindWish, usages: ReadonlyMap<Address, Usage>): Fix[] {
  const display = ofBootDisplay(look, bind);
  const kept = bind.flatMap((p) => {
    // What a guest has open is bound already.
    const use = usages.get(p.address)?.uses.find((u) => u.guard !== 'in-use');
    return display.includes(p) || use === undefined ? [] : [{ p, reason: use.reason }];
  });
  const rest = bind.filter((p) => !display.includes(p) && !kept.some((k) => k.p === p)).slice(0, NAMED);
  if (rest.length === 0) return [];
  const left = [
    ...(display.length > 0 ? ['the boot display and what goes with it are left to the host'] : []),
    ...kept.slice(0, NAMED).map(({ p, reason }) => `${p.address} is left to the host: ${reason}`),
  ];
  return [
    bindFix(
      rest.map((p) => p.address),
      [when, ...left].join('; '),
    ),
  ];
}
