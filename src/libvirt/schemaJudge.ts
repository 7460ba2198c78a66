/**
 * The schema of the installed libvirt as a judge of a domain: domain.rng by xmllint. It is the only judge that sees words which nobody knows, and it needs no
 * connection. libvirt itself judges by the same file with the same library (virXMLValidatorValidate), when it defines with VALIDATE.
 */
import { spawn } from 'node:child_process';
import type { Host } from '../host/host.ts';
import { safe } from '../text/safe.ts';

/** Time for one document, in ms: a thousand devices take 0.2 s. */
const LIMIT_MS = 10_000;

/** What is read of xmllint's messages. */
const MAX_BYTES = 64 * 1024;
const MAX_FAULTS = 4;
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

/** Judges a domain's XML by the schema that is installed on this host. Nothing is fetched, nothing but the schema is read. */
export async function judgeBySchema(host: Host, xml: string): Promise<SchemaVerdict> {
  if (!host.isReal) return notJudged('no program of this machine judges below another root');
  if (host.list(host.libvirtSchemas)?.includes('domain.rng') !== true) {
    return notJudged(`${host.absolute(host.libvirtSchemas)} has no domain.rng: libvirt's packages bring it`);
  }
  const { status, error, messages } = await xmllint(host.absolute(`${host.libvirtSchemas}/domain.rng`), xml);
  if (status === 0) return { verdict: 'passed' };
  if (status === REFUSED) return { verdict: 'refused', faults: readFaults(messages) };
  if (error === 'ENOENT') return notJudged('xmllint is not installed (libxml2-utils)');
  if (error !== null) return notJudged(`xmllint could not be asked (${error})`);
  return notJudged(`xmllint ended with ${status}: ${safe(messages.split('\n')[0] ?? '', MAX_TEXT)}`);
}

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
function xmllint(schema: string, xml: string): Promise<Ran> {
  return new Promise((resolve) => {
    const child = spawn('xmllint', ['--nonet', '--noout', '--relaxng', schema, '-'], {
      cwd: '/',
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', XML_CATALOG_FILES: '' },
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    let messages = '';
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      child.kill('SIGKILL');
    }, LIMIT_MS);
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
      const error = isLate ? `no answer in ${LIMIT_MS / 1000} s` : signal;
      end({ status, error, messages });
    });
  });
}
