/**
 * The schema of the installed libvirt as a judge of a domain: domain.rng by xmllint. It is the only judge that sees
 * words which nobody knows, and it needs no connection. libvirt itself judges by the same file with the same library
 * (virXMLValidatorValidate), when it defines with VALIDATE.
 */
import { spawn } from 'node:child_process';
import type { Domain } from '../domain/xml/domain.ts';
import type { Host } from '../host/host.ts';
import { safe } from '../text/safe.ts';
import { type Culprit, findCulprit } from './schemaCulprit.ts';

/** What is read of xmllint's messages. */
const MAX_BYTES = 64 * 1024;
const MAX_FAULTS = 4;
/** Of a longer document the culprit is not looked for. */
const MAX_SEARCHED = 256 * 1024;
const MAX_TEXT = 200;

/** xmllint's exit status for a document that is not of the schema (XMLLINT_ERR_VALID); every other is no verdict. */
const REFUSED = 3;

/** `-:12: element sound: Relax-NG validity error : Element devices has extra content: sound` */
const MESSAGE = /^(?:-:(\d{1,9}): element ([^:\s]+): )?Relax-NG validity error : (.*)$/;

export type SchemaFault = { line: number | null; element: string | null; text: string };

export type SchemaVerdict =
  | { verdict: 'passed' }
  | { verdict: 'refused'; faults: SchemaFault[] }
  /** `why` is a clause: nobody may take it for a yes or a no. */
  | { verdict: 'not judged'; why: string };

const notJudged = (why: string): SchemaVerdict => ({ verdict: 'not judged', why });

/** The program, and how long one document may take it, in ms. */
export type Linter = { program: string; limitMs: number };
export const XMLLINT: Linter = { program: 'xmllint', limitMs: 10_000 };

/** Judges a domain by the schema that is installed on this host. Nothing is fetched, nothing but the schema is read. */
export async function judgeBySchema(host: Host, { text }: Domain, linter: Linter): Promise<SchemaVerdict> {
  if (!host.isReal) return notJudged('no program of this machine judges below another root');
  if (host.list(host.libvirtSchemas)?.includes('domain.rng') !== true) {
    return notJudged(`${host.absolute(host.libvirtSchemas)} has no domain.rng: libvirt's packages bring it`);
  }
  const { status, error, messages } = await lint(host, linter, text);
  if (status === 0) return { verdict: 'passed' };
  if (status === REFUSED) return { verdict: 'refused', faults: readFaults(messages) };
  if (error === 'ENOENT') return notJudged('xmllint is not installed (libxml2-utils)');
  if (error !== null) return notJudged(`xmllint could not be asked (${error})`);
  return notJudged(`xmllint ended with ${status}: ${safe(messages.split('\n')[0] ?? '', MAX_TEXT)}`);
}

/**
 * What of a domain that the schema refused is refused; null where no single thing is, and for a document too long to be
 * asked about many times.
 */
export const schemaCulprit = async (host: Host, domain: Domain, linter: Linter): Promise<Culprit | null> =>
  domain.text.length > MAX_SEARCHED
    ? null
    : findCulprit(domain, async (xml) => (await lint(host, linter, xml)).status === 0);

const schemaOf = (host: Host): string => host.absolute(`${host.libvirtSchemas}/domain.rng`);

function readFaults(messages: string): SchemaFault[] {
  const found = messages.split('\n').flatMap((message): SchemaFault[] => {
    const [whole, line, element, text = ''] = MESSAGE.exec(message) ?? [];
    if (whole === undefined) return [];
    return [{ line: line === undefined ? null : Number(line), element: element ?? null, text: safe(text, MAX_TEXT) }];
  });
  return found.length > 0
    ? found.slice(0, MAX_FAULTS)
    : [{ line: null, element: null, text: 'it is not of the schema' }];
}

type Ran = { status: number | null; error: string | null; messages: string };

/** Runs xmllint with the document on its stdin. No catalogue and no setting of the caller's counts. */
function lint(host: Host, { program, limitMs }: Linter, xml: string): Promise<Ran> {
  const [schema, path] = [schemaOf(host), host.programs];
  return new Promise((resolve) => {
    const child = spawn(program, ['--nonet', '--noout', '--relaxng', schema, '-'], {
      cwd: '/',
      env: { PATH: path, LC_ALL: 'C', XML_CATALOG_FILES: '' },
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    let messages = '';
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      child.kill('SIGKILL');
    }, limitMs);
    const end = (ran: Ran): void => {
      clearTimeout(timer);
      resolve(ran);
    };
    child.stderr.setEncoding('utf8').on('data', (part: string) => {
      // What is beyond is read and dropped: a writer that nobody reads would wait for ever.
      if (messages.length < MAX_BYTES) messages += part.slice(0, MAX_BYTES - messages.length);
    });
    // It may end before it has read everything.
    child.stdin.on('error', () => {});
    child.stdin.end(xml);
    child.on('error', (e: NodeJS.ErrnoException) => end({ status: null, error: e.code ?? e.message, messages }));
    child.on('close', (status, signal) => {
      const error = isLate ? `no answer in ${limitMs / 1000} s` : signal;
      end({ status, error, messages });
    });
  });
}
