/**
 * A libvirt.so.0 that kills its own process: it hands every function on to the real one, and counts a point before and
 * one after each call that asks the daemon. KILL_AT=N is the point at which it sends SIGKILL; the points that were
 * passed are counted in the length of the file KILL_COUNT.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const API = join(dirname(new URL(import.meta.url).pathname), '../../native/libvirt_api.cc');

/** Those that ask the daemon for something, with their parameters. */
const COUNTED: Readonly<Record<string, [type: string, parameters: string]>> = {
  virConnectListAllDomains: ['int', 'void* a, void* b, unsigned c'],
  virDomainLookupByUUIDString: ['void*', 'void* a, const char* b'],
  virDomainGetXMLDesc: ['char*', 'void* a, unsigned b'],
  virDomainAttachDeviceFlags: ['int', 'void* a, const char* b, unsigned c'],
  virDomainDetachDeviceFlags: ['int', 'void* a, const char* b, unsigned c'],
};

/** Where the real one is. */
function realLibrary(): string {
  const line = execFileSync('ldconfig', ['-p'], { encoding: 'utf8', env: { PATH: '/usr/sbin:/sbin:/usr/bin:/bin' } })
    .split('\n')
    .find((l) => l.includes('libvirt.so.0 ') && l.includes('=>'));
  if (line === undefined) throw new Error('ldconfig knows no libvirt.so.0');
  return line.split('=> ')[1]?.trim() ?? '';
}

function source(): string {
  const names = [...readFileSync(API, 'utf8').matchAll(/find\(so, "(vir\w+)"/g)].map((m) => m[1] ?? '');
  const functions = names.map((name) => {
    const counted = COUNTED[name];
    if (counted === undefined)
      return `static void* real_${name};\n__attribute__((naked)) void ${name}(void) { __asm__("jmp *%0" : : "m"(real_${name})); }`;
    const [type, parameters] = counted;
    const words = parameters.split(', ').map((p) => p.split(' ').at(-1));
    return `static void* real_${name};
${type} ${name}(${parameters}) {
  point();
  ${type} answer = ((${type} (*)(${parameters}))real_${name})(${words.join(', ')});
  point();
  return answer;
}`;
  });
  const found = names.map((name) => `  real_${name} = dlsym(so, "${name}");`);
  return `#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
static int passed;
static void point(void) {
  const char* at = getenv("KILL_AT");
  int file = open(getenv("KILL_COUNT"), O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (write(file, ".", 1) != 1) abort();
  close(file);
  if (at != NULL && passed++ == atoi(at)) kill(getpid(), SIGKILL);
}
${functions.join('\n')}
__attribute__((constructor)) static void start(void) {
  void* so = dlopen("${realLibrary()}", RTLD_NOW | RTLD_LOCAL);
${found.join('\n')}
}
`;
}

/** Builds it, and gives the folder to put in LD_LIBRARY_PATH. */
export function buildKiller(): string {
  const dir = mkdtempSync(join(tmpdir(), 'hostdev-killer-'));
  writeFileSync(join(dir, 'killer.c'), source());
  execFileSync('gcc', ['-shared', '-fPIC', '-O1', '-o', join(dir, 'libvirt.so.0'), join(dir, 'killer.c'), '-ldl']);
  return dir;
}
