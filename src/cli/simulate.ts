import { MAX_SCENARIO_BYTES, parseScenario } from '../simulate/scenario.ts';
import { type PoolView, type Report, type StepVerdict, simulate, type Verdict } from '../simulate/simulate.ts';
import { warning } from '../text/warning.ts';
import type { Answer, Invocation } from './command.ts';
import { readInput } from './input.ts';
import { table } from './table.ts';

/** `hostdev simulate [FILE|-]` */
export async function simulateCommand({ words }: Invocation): Promise<Answer> {
  const scenario = parseScenario(await readInput(words[0] ?? '-', MAX_SCENARIO_BYTES + 1));
  const { verdict, notes } = simulate(scenario);
  return { json: verdict, text: textOf(verdict), warnings: notes.map((n) => warning('nova', n)) };
}

function textOf(v: Verdict): string {
  const errors = [
    ['device_spec', v.spec_error],
    ['alias', v.alias_error],
    ['devices', v.tracker_error ?? null],
  ] as const;
  const lines = errors.filter(([, e]) => e !== null).map(([what, e]) => `${what}: ${e?.class}: ${e?.message}\n`);
  const steps = v.steps?.map((s, i) => stepText(s, i)) ?? [];
  const placement = v.placement === undefined ? '' : placementText(v.placement);
  return [...lines, pools(v.pools ?? []), placement, ...steps].filter((t) => t !== '').join('\n');
}

function pools(list: PoolView[]): string {
  const rows = list.map((p) => {
    const { address, vendor_id, product_id, numa_node, dev_type, count, devices, _has_rp: _, ...tags } = p;
    const rest = Object.entries(tags).map(([k, t]) => `${k}=${typeof t === 'string' ? t : JSON.stringify(t)}`);
    return [
      `${address}`,
      `${vendor_id}:${product_id}`,
      `${dev_type}`.replace('type-', ''),
      `${numa_node ?? '-'}`,
      `${count}`,
      devices.join(' '),
      rest.join(' '),
    ].map(String);
  });
  return table(['POOL', 'IDS', 'TYPE', 'NUMA', 'FREE', 'DEVICES', 'TAGS'], rows);
}

function placementText(p: Report): string {
  if (p.error !== null) return `placement: ${p.error.class}: ${p.error.message}\n`;
  const rows = Object.entries(p.rps).flatMap(([name, { inventory, traits }]) =>
    Object.entries(inventory).map(([cls, i]) => [name, cls, `${i.total}`, `${i.reserved ?? 0}`, traits.join(' ')]),
  );
  return table(['PROVIDER', 'CLASS', 'TOTAL', 'RESERVED', 'TRAITS'], rows);
}

function stepText(s: StepVerdict, index: number): string {
  const stage = s.stage === 'support' ? 'refused: the devices are not all free' : 'done';
  const outcome = s.error ? `${s.error.class}: ${s.error.message}` : stage;
  const got = s.devices?.length ? `: ${s.devices.join(' ')}` : '';
  return `${index + 1}. ${s.op} ${s.instance ?? ''}: ${outcome}${got}\n`;
}
