import { type Attached, type AttachedDevice, attachDevices } from '../actions/attach.ts';
import { type Detached, type DetachedDevice, detachDevices } from '../actions/detach.ts';
import { foreseenRefusal } from '../actions/plan.ts';
import { HostdevError } from '../errors.ts';
import { quote, safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { takeOptions } from './takeOptions.ts';

/** `hostdev attach DOMAIN DEV… [--live] [--config] …` */
export async function attach({ host, words, own, options, connect }: Invocation): Promise<Answer> {
  const [guest = '', ...add] = words;
  const request = { guest, connect, ...halves(own), ...takeOptions(own), add };
  const { warnings, ...json } = await attachDevices(host, request, timed(own, options));
  return {
    json,
    text: safeBlock(attachText(json, options.dryRun)),
    warnings,
    refused: foreseenRefusal(host, json, options),
  };
}

/** `hostdev detach DOMAIN DEV… [--live] [--config] [--seconds N]` */
export async function detach({ host, words, own, options, connect }: Invocation): Promise<Answer> {
  const [guest = '', ...devices] = words;
  const request = { guest, connect, words: devices, ...halves(own) };
  const { warnings, ...json } = await detachDevices(host, request, timed(own, options));
  return { json, text: safeBlock(detachText(json, options.dryRun)), warnings };
}

const halves = (own: Invocation['own']) => ({ live: own.live === true, config: own.config === true });

function timed(own: Invocation['own'], options: Invocation['options']): Invocation['options'] {
  if (own.seconds === undefined) return options;
  const seconds = Number(own.seconds);
  if (!(seconds >= 1 && seconds <= 3600))
    throw new HostdevError('HOSTDEV_USAGE', `--seconds ${quote(own.seconds)}: 1 to 3600 is expected`);
  return { ...options, deadlineMs: seconds * 1000 };
}

const WHERE = { live: 'the running guest', config: 'its next start' } as const;
const each = (d: AttachedDevice | DetachedDevice, outcome: string): string =>
  (['live', 'config'] as const)
    .filter((h) => d[h] === outcome)
    .map((h) => WHERE[h])
    .join(' and ');

function attachText({ devices, guest, plan, free_ports }: Omit<Attached, 'warnings'>, dryRun: boolean): string {
  const lines = devices.map((d) => {
    const put = each(d, 'attached');
    const had = each(d, 'already');
    const what = [
      ...(put === '' ? [] : [`${dryRun ? 'would be' : 'is'} in ${put}${d.unassigned ? ', not shown to it' : ''}`]),
      ...(had === '' ? [] : [`was in ${had} already`]),
    ];
    return `${d.address}  ${what.join('; ')} (${guest.name})\n`;
  });
  const writes = dryRun ? plan.steps.map((s) => `  ${s.value.trim()} > ${s.path}\n`) : [];
  const ports = dryRun && free_ports !== null ? [`Ports free for hot-plug: ${free_ports}\n`] : [];
  return [...lines, ...writes, ...ports].join('');
}

const detachText = ({ devices, guest }: Omit<Detached, 'warnings'>, dryRun: boolean): string =>
  devices
    .map((d) => {
      const out = each(d, 'detached');
      const on = d.driver === null ? 'no driver' : d.driver;
      const back =
        d.live === 'detached' ? (dryRun ? '' : d.given_back ? `, and on ${on} again` : `, and on ${on}`) : '';
      return `${d.address}  ${dryRun ? 'would be' : 'is'} out of ${out} (${guest.name})${back}\n`;
    })
    .join('');
