/** Asks a libvirt about many domains through one virsh. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * The test driver of the libvirt that virsh is linked to: it has the schema, the parser and the validators that all
 * drivers share.
 */
export const TEST_DRIVER = 'test:///default';

/** The version of the libvirt that virsh here would ask; null without virsh. */
export function virshVersion(): string | null {
  const { status, stdout } = spawnSync('virsh', ['--version'], { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : null;
}

const MARK = /^error: #(\d+)$/;

/**
 * What the libvirt at `uri` says of each XML, defined with VIR_DOMAIN_DEFINE_VALIDATE and undefined again: null, or its
 * error. `names` are the names of the domains. Rejects when virsh does not answer for every one.
 */
export async function askLibvirt(uri: string, names: string[], xmls: string[]): Promise<(string | null)[]> {
  const dir = mkdtempSync(join(tmpdir(), 'hostdev-fuzz-'));
  try {
    const commands = xmls.map((xml, i) => {
      const file = join(dir, `${i}.xml`);
      writeFileSync(file, xml);
      // The mark goes between define and undefine: what stands before it is the answer.
      return `define --validate ${file}\necho --err "#${i}"\n${uri.startsWith('test:') ? 'undefine' : 'undefine --nvram'} ${names[i]}\necho --err "#"\n`;
    });
    const said = await run(uri, commands.join(''));
    return answers(said, xmls.length);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function run(uri: string, commands: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('virsh', ['-q', '-c', uri], { env: { ...process.env, LC_ALL: 'C' } });
    let said = '';
    child.stdout.resume();
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    child.on('error', reject).on('close', () => resolve(said));
    child.stdin.on('error', () => {}).end(commands);
  });
}

function answers(said: string, count: number): (string | null)[] {
  const found: (string | null)[] = [];
  let lines: string[] = [];
  for (const line of said.split('\n')) {
    const mark = MARK.exec(line);
    if (line === 'error: #') lines = [];
    else if (mark) {
      if (Number(mark[1]) !== found.length) throw new Error(`virsh answered #${mark[1]} for #${found.length}`);
      const error = lines.filter((l) => !l.startsWith('error: Failed to define')).join(' ');
      found.push(lines.length > 0 ? error : null);
      lines = [];
    } else lines.push(line);
  }
  if (found.length !== count) throw new Error(`virsh answered ${found.length} of ${count}: ${said.slice(-500)}`);
  return found;
}
