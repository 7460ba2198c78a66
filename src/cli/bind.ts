import { bindDevices } from '../actions/bind.ts';
import { foreseenRefusal, type PrintedPlan } from '../actions/plan.ts';
import { unbindDevices } from '../actions/unbind.ts';
import { HostdevError } from '../errors.ts';
import { quote, safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { alsoKept, persist } from './kept.ts';

/** `hostdev bind DEV… [--driver NAME|auto] [--group endpoints] [--persist]` */
export async function bind({ host, words, own, options }: Invocation): Promise<Answer> {
  const driver = typeof own.driver === 'string' && own.driver !== 'auto' ? own.driver : null;
  if (own.group !== undefined && own.group !== 'endpoints')
    throw new HostdevError('HOSTDEV_USAGE', `--group ${quote(own.group)}: there is only 'endpoints'`);
  const whole = own.group === 'endpoints';
  const { warnings, ...json } = await (own.persist === true ? (await persist()).bindAndKeep : bindDevices)(
    host,
    words,
    driver,
    options,
    whole,
  );
  const held = json.held.map(
    (d) =>
      `${d.address}  on ${d.driver} already, for ${d.for.join(', ')}; for the admin too: it stays when they let go\n`,
  );
  const rest = held.length > 0 && json.plan.devices.length === 0;
  const text = rest ? '' : changeText(json, options.dryRun, 'on a VFIO driver already');
  const all = `${text}${held.join('')}${alsoKept(json, options.dryRun)}`;
  return { json, text: safeBlock(all), warnings, refused: foreseenRefusal(host, json, options) };
}

/** `hostdev unbind DEV… [--to-host] [--persist]` */
export async function unbind({ host, words, own, options }: Invocation): Promise<Answer> {
  const toHost = own['to-host'] === true;
  const { warnings, ...json } = await (own.persist === true ? (await persist()).unbindAndKeep : unbindDevices)(
    host,
    words,
    toHost,
    options,
  );
  return {
    json,
    text: safeBlock(
      `${changeText(json, options.dryRun, 'where it was already', toHost ? 'a host driver, if one claims it' : NONE)}${alsoKept(json, options.dryRun)}`,
    ),
    warnings,
    refused: foreseenRefusal(host, json, options),
  };
}

const NONE = 'no driver';

/**
 * A dry run shows the writes and what would become of each device (`unknown` where nobody can tell); a real one what
 * has.
 */
function changeText(
  { changed, plan }: { changed: boolean; plan: PrintedPlan },
  dryRun: boolean,
  already: string,
  unknown = NONE,
): string {
  const devices = (none: string): string =>
    plan.devices.map((d) => `${d.address}  ${d.driver_from ?? NONE} -> ${d.driver_to ?? none}\n`).join('');
  if (dryRun) {
    if (plan.steps.length === 0) return `Nothing to do: ${already}\n`;
    const steps = plan.steps.map((s) => `${JSON.stringify(s.value.trim())} > /${s.path}\n`);
    return `${steps.join('')}${devices(unknown)}`;
  }
  if (!changed) return `Nothing to do: ${already}\n`;
  return devices(NONE);
}
