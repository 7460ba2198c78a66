import { suggestForDomain } from '../actions/viommuSuggest.ts';
import { safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { readInput } from './input.ts';

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null);

/** `hostdev viommu suggest FILE [--model MODEL] [--libvirt X.Y.Z] [--qemu X.Y.Z]`: exit 3 when there is none for it. */
export async function viommuSuggest({ host, words, own }: Invocation): Promise<Answer> {
  const file = words[0] ?? '-';
  const wish = text(own.model) ?? 'auto';
  const asked = { libvirt: text(own.libvirt), qemu: text(own.qemu) };
  const what = file === '-' ? 'stdin' : file;
  const { warnings, ...json } = await suggestForDomain(host, await readInput(file), what, wish, asked);
  const lines = [
    json.xml,
    ...json.needs.map((n) => `in <${n.path.join('><')}>: ${n.xml}`),
    ...(json.replaces.length > 0 ? [`in place of: ${json.replaces.join(', ')}`] : []),
    ...json.reasons.map((r) => `- ${r}`),
    ...json.notes.map((n) => `note: ${n}`),
  ];
  return { json, text: `${lines.map(safeBlock).join('\n')}\n`, warnings };
}
