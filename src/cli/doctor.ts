import { cloudInit } from '../actions/cloudInit.ts';
import { diagnose } from '../actions/doctor.ts';
import { FINDINGS, type Finding, type Fix } from '../doctor/table.ts';
import { EXIT, HostdevError } from '../errors.ts';
import { hookProgram } from '../hook/program.ts';
import { safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { colours } from './table.ts';

/**
 * `hostdev doctor`: exit 3 with a finding of severity error. With --cloud-init nothing is judged: user-data for new
 * machines.
 */
export async function doctor({ host, own }: Invocation): Promise<Answer> {
  const juju = own.juju === true;
  if (juju && own['cloud-init'] !== true) throw new HostdevError('HOSTDEV_USAGE', '--juju goes with --cloud-init');
  if (own['cloud-init'] === true) {
    const json = await cloudInit(host, juju);
    return { json, text: json.user_data };
  }
  const { findings, not_measured, warnings } = await diagnose(host, hookProgram());
  const { bad, warn, good } = colours(process.stdout);
  const paint = { error: bad, warning: warn, note: safeBlock };
  const errors = findings.filter((f) => f.severity === 'error').length;
  const told = new Set<Fix>();
  const blocks = findings.map(
    (f) => `${paint[f.severity](`${f.severity}: ${f.id}: ${safeBlock(f.object)}`)}\n${body(f, told)}`,
  );
  const unmeasured = not_measured.map((u) => `not measured: ${safeBlock(u.object)}: ${safeBlock(u.reason)}\n`);
  const sum =
    errors > 0 ? bad(`${errors} of ${findings.length} findings keep guests from devices\n`) : good('no error found\n');
  return {
    json: { findings, not_measured },
    text: [...blocks, ...unmeasured, sum].join(''),
    warnings,
    exit: errors > 0 ? EXIT.no : EXIT.done,
  };
}

/**
 * What it means, what was seen, and the lines to change for the tools that this host has; for all tools where it has
 * none. A fix that several findings share, the kernel line, is written out once.
 */
function body(f: Finding, told: Set<Fix>): string {
  const here = f.fix.filter((x) => x.present);
  const fixes = here.length > 0 ? here : f.fix;
  return [`  ${FINDINGS[f.id].text}`, `  ${safeBlock(f.cause)}`, ...fixes.map((x) => fixText(x, told))]
    .join('\n')
    .concat('\n');
}

/** A fix as it is printed; one that was told before is named only. */
export function fixText(x: Fix, told: Set<Fix>): string {
  if (told.has(x)) return `    ${x.tool}: ${safeBlock(x.where)} (as above)`;
  told.add(x);
  const lines = safeBlock(x.line)
    .split('\n')
    .map((l) => `      ${l}`);
  return [
    `    ${x.tool}: ${safeBlock(x.where)}`,
    ...lines,
    ...(x.after === null ? [] : [`      (then: ${safeBlock(x.after)})`]),
  ].join('\n');
}
