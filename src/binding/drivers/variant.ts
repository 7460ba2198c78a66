/**
 * Which module drives a device for a guest: vfio_pci, or the variant that the kernel's module tables name for it
 * (mlx5_vfio_pci, nvgrace_gpu_vfio_pci, ...). Pure: the caller reads the files. The tables of the running kernel are
 * the only source, never a list of ours, since out-of-tree variants and new ids come with the kernel package.
 */

/** The fields of a PCI modalias as texts: `00008086`, `*` in an alias pattern; class parts have two digits. */
export type Modalias = { v: string; d: string; sv: string; sd: string; bc: string; sc: string; i: string };

export type Variant = {
  /** A module's name as depmod writes it (`vfio_pci`): the driver of the generic module is called `vfio-pci`. */
  module: string;
  /** How many of the seven fields are `*`: 7 is the generic entry. */
  wildcards: number;
  source: 'modules.alias' | 'modules.builtin.modinfo';
};

const FIELDS = ['v', 'd', 'sv', 'sd', 'bc', 'sc', 'i'] as const;

/**
 * In this order in every modalias (do_pci_entry in scripts/mod/file2alias.c); digits are upper case, so field names
 * can't be mistaken.
 */
const MODALIAS = new RegExp(`^(?:vfio_)?pci:${FIELDS.map((f) => `${f}(\\*|[0-9A-F]+)`).join('')}$`);

/** What a module may be called (MODULE_NAME_LEN): the name ends up in paths and in modprobe's arguments. */
const MODULE = /^[A-Za-z0-9_-]{1,55}$/;

/** The two buses of an alias: what a VFIO driver says of itself, and what a host driver does. */
type Bus = 'vfio_pci' | 'pci';

/** A generic line is 50 characters long; what is longer than this is no alias and costs no pattern. */
const MAX_LINE = 512;

/**
 * Splits `pci:v00008086d000010C9sv…sd…bc02sc00i00` (a device's modalias file, without its line end) or the same after
 * `vfio_pci:` (an alias pattern, whose fields may be `*`). Null when it isn't exactly that.
 */
export function parseModalias(text: string): Modalias | null {
  const m = text.length <= MAX_LINE ? MODALIAS.exec(text) : null;
  if (!m) return null;
  const [, v = '', d = '', sv = '', sd = '', bc = '', sc = '', i = ''] = m;
  return { v, d, sv, sd, bc, sc, i };
}

/** The number of `*` in the pattern when all other fields are equal, else null. */
function match(device: Modalias, pattern: string): number | null {
  const wanted = parseModalias(pattern);
  if (!wanted) return null;
  let wildcards = 0;
  for (const f of FIELDS) {
    if (wanted[f] === '*') wildcards++;
    else if (wanted[f] !== device[f]) return null;
  }
  return wildcards;
}

type Alias = { pattern: string; module: string };

/**
 * The lines `alias vfio_pci:… module` of modules.alias. Thousands of other lines are never looked at one by one; those
 * of pci: all begin with the vendor's number.
 */
function* aliasLines(text: string, bus: Bus, vendor = ''): Generator<Alias> {
  const line = `alias ${bus}:${vendor}`;
  let next = 0;
  for (let at = text.indexOf(line); at >= 0; at = text.indexOf(line, next)) {
    const end = text.indexOf('\n', at);
    next = end < 0 ? text.length : end;
    if ((at > 0 && text[at - 1] !== '\n') || next - at > MAX_LINE) continue;
    const [, pattern, module, ...more] = text.slice(at, next).split(' ');
    if (pattern && module && more.length === 0) yield { pattern, module };
  }
}

/** The records `module.alias=vfio_pci:…`, or pci:, of modules.builtin.modinfo, each ended by a NUL. */
function* builtinRecords(text: string, bus: Bus, vendor = ''): Generator<Alias> {
  const key = `.alias=${bus}:${vendor}`;
  let next = 0;
  for (let at = text.indexOf(key); at >= 0; at = text.indexOf(key, next)) {
    const end = text.indexOf('\0', at);
    next = end < 0 ? text.length : end;
    const start = text.lastIndexOf('\0', at) + 1;
    if (next - start > MAX_LINE) continue;
    yield { pattern: text.slice(at + '.alias='.length, next), module: text.slice(start, at) };
  }
}

function best(device: Modalias, aliases: Iterable<Alias>, source: Variant['source']): Variant | null {
  let found: Variant | null = null;
  for (const { pattern, module } of aliases) {
    const wildcards = match(device, pattern);
    if (wildcards === null || !MODULE.test(module)) continue;
    if (!found || wildcards < found.wildcards) found = { module, wildcards, source };
  }
  return found;
}

/**
 * The module that fits the device best, by the rule of libvirt 10.0.0 and later (virPCIDeviceFindBestVFIOVariant in
 * virpci.c): each of the seven fields of an alias is `*` or equal, the fewest `*` win, the first line wins a tie;
 * lines that are no aliases are skipped. `deviceModalias` is the device's modalias with or without its line end,
 * `modulesAlias` the text of modules.alias, `builtinModinfo` that of modules.builtin.modinfo or null: libvirt doesn't
 * read the latter, so it is asked second and loses ties. Null when nothing fits (vfio-pci is not installed) or the
 * modalias is none.
 */
export function chooseVariant(
  deviceModalias: string,
  modulesAlias: string,
  builtinModinfo: string | null,
): Variant | null {
  const device = parseModalias(deviceModalias.trimEnd());
  if (!device) return null;
  const loadable = best(device, aliasLines(modulesAlias, 'vfio_pci'), 'modules.alias');
  const builtin = best(device, builtinRecords(builtinModinfo ?? '', 'vfio_pci'), 'modules.builtin.modinfo');
  if (!loadable || !builtin) return loadable ?? builtin;
  return builtin.wildcards < loadable.wildcards ? builtin : loadable;
}

/**
 * The modules whose drivers claim a device for the host (`alias pci:…`), each once. Of a vendor that is `*` (class
 * drivers: ahci, nvme) the class is named.
 */
export function hostModules(deviceModalias: string, modulesAlias: string, builtinModinfo: string | null): string[] {
  const device = parseModalias(deviceModalias.trimEnd());
  if (!device) return [];
  const vendors = [`v${device.v}`, 'v*'];
  const all = vendors.flatMap((v) => [
    ...aliasLines(modulesAlias, 'pci', v),
    ...builtinRecords(builtinModinfo ?? '', 'pci', v),
  ]);
  const fit = all.filter(({ pattern, module }) => match(device, pattern) !== null && MODULE.test(module));
  return [...new Set(fit.map(({ module }) => module.replaceAll('-', '_')))];
}
