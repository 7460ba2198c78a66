/**
 * What a shell script does with devices, as the lines to take out so that nothing of it is left and the rest still
 * runs: a function with its calls, a loop, the lines of a condition. Read as far as the shell's blocks go, no further;
 * a script that cannot be read so is said to be none.
 */

/** Moves a PCI device, or asks libvirt or a tool to. Taking a platform driver's frame buffer away moves none. */
export const MOVES =
  /driver_override|drivers_probe|\b(?:new|remove)_id\b|(?<!\/platform\/drivers\/[^\s/]{1,64})\/unbind\b|\/pci\/drivers\/[^\s/]{1,64}\/bind\b|nodedev-(?:detach|dettach|reattach)|\bdriverctl\s+(?:(?:-b|--bus)\s+\S{1,64}\s+|-\S+\s+)*(?:un)?set-override/;

/** Loads what devices were moved to, and nothing else. */
const LOADS = /^modprobe\s+(?:-\S+\s+)*(?:(?:vfio|pci[-_]stub)\S*(?:\s+|$))+(?:\w+=\S*(?:\s+|$))*$/;

/** Does nothing to the host: what stands around a move, and is for nothing without it. */
const IDLE =
  /^(?:\w+\+?=|(?:local|readonly|export|declare|set|shift|return|break|continue|true|sleep|test|cat|read)\b|:|\[|$)/;
const SAYS = /^(?:echo|printf|logger)\b/;

/** Lines `first` to `last`, counted from 1, and what they are to be. */
export type Taken = { first: number; last: number; lines: string[] };

/**
 * A line of the shell's, which may go over several of the file: its text without comments, and its commands with "" for
 * what is in quotes.
 */
type Line = { first: number; last: number; full: string; moves: boolean; commands: string[]; events: Event[] };
/** What a command opens and closes; `name` is a function's, whose brace may come in a later line. */
type Event = { kind: 'open' | 'close' | 'name'; name: string | null; isCase: boolean };
type Block = { name: string | null; isCase: boolean; opener: Line; closer: Line | null; parts: Line[]; inner: Node[] };
type Node = Line | Block;

const isBlock = (n: Node): n is Block => 'inner' in n;

const MAX_LINES = 4096;
/** File lines that one line of the shell's goes over, here-documents aside. */
const MAX_JOINED = 128;
/** Functions that only call one another, one after the other. */
const MAX_TURNS = 32;

/** The lines to take out; null where the script's blocks cannot be told, empty where it moves nothing. */
export function workOf(text: string): Taken[] | null {
  const raw = text.split('\n');
  const lines = raw.length > MAX_LINES ? null : logicalLines(raw);
  const root = lines === null ? null : blocksOf(lines);
  if (root === null) return null;
  const gone = new Set<Line>();
  const names = new Set<string>();
  // A function that goes takes its calls along, and they may be all that another does.
  for (let turn = 0, before = -1; before !== gone.size + names.size; turn += 1) {
    if (turn > MAX_TURNS) return null;
    before = gone.size + names.size;
    for (const node of root) takeOut(node, gone, names);
  }
  if (gone.size === 0) return [];
  for (const node of root) {
    if (!isBlock(node) && node.commands.length > 0 && node.commands.every((c) => LOADS.test(c))) gone.add(node);
  }
  const uses = usersOf(lines ?? []);
  for (const node of root) {
    const users = isBlock(node) ? undefined : uses.get(setBy(node) ?? '')?.filter((l) => l !== node);
    // A variable that only lines which go have a use for.
    if (!isBlock(node) && users !== undefined && users.length > 0 && users.every((l) => gone.has(l))) gone.add(node);
  }
  return written(raw, root, gone);
}

/** The variable that a line sets, where it does nothing else. */
function setBy(line: Line): string | null {
  const [only = '', ...more] = line.commands;
  return more.length > 0 ? null : (/^(?:export\s+|readonly\s+|declare\s+)?(\w+)=[^ ]*$/.exec(only)?.[1] ?? null);
}

/** Lines that use each variable. */
function usersOf(lines: readonly Line[]): Map<string, Line[]> {
  const users = new Map<string, Line[]>();
  for (const line of lines)
    for (const [, name = ''] of line.full.matchAll(/\$\{?[!#]?(\w+)/g)) {
      const list = users.get(name);
      if (list === undefined) users.set(name, [line]);
      else if (list.at(-1) !== line) list.push(line);
    }
  return users;
}

const everyLine = (node: Node): Line[] =>
  isBlock(node)
    ? [node.opener, ...node.parts, ...node.inner.flatMap(everyLine), ...(node.closer === null ? [] : [node.closer])]
    : [node];

/** What becomes of a line or block: all of it goes, it is for nothing by itself, or something else is in it. */
type State = 'goes' | 'idle' | 'stays';

function takeOut(node: Node, gone: Set<Line>, names: Set<string>): State {
  const moves = (l: Line): boolean => l.moves || l.commands.some((c) => names.has(c.split(/\s/, 1)[0] ?? ''));
  if (!isBlock(node)) {
    if (gone.has(node) || moves(node)) {
      gone.add(node);
      for (const e of node.events) if (e.kind === 'open' && e.name !== null) names.add(e.name);
      return 'goes';
    }
    return node.commands.every((c) => IDLE.test(c) || LOADS.test(c) || (SAYS.test(c) && !c.includes('>')))
      ? 'idle'
      : 'stays';
  }
  const states = node.inner.map((n) => takeOut(n, gone, names));
  const structure = [node.opener, ...node.parts, ...(node.closer === null ? [] : [node.closer])];
  const all = structure.some(moves) || (states.includes('goes') && !states.includes('stays'));
  if (!all) return states.every((s) => s === 'idle') ? 'idle' : 'stays';
  for (const l of everyLine(node)) gone.add(l);
  if (node.name !== null) names.add(node.name);
  return 'goes';
}

/**
 * Comments, in runs; a line inside a block that stays leaves a command that does nothing, without which the block could
 * be empty.
 */
function written(raw: readonly string[], root: readonly Node[], gone: ReadonlySet<Line>): Taken[] {
  const inBlock = new Map<Line, Block>();
  const visit = (node: Node): void => {
    if (!isBlock(node) || gone.has(node.opener)) return;
    for (const n of node.inner) {
      inBlock.set(isBlock(n) ? n.opener : n, node);
      visit(n);
    }
  };
  root.forEach(visit);
  const at = new Map<number, string>();
  for (const l of gone)
    for (let n = l.first; n <= l.last; n += 1) {
      const line = raw[n - 1] ?? '';
      const block = n === l.first ? inBlock.get(l) : undefined;
      at.set(n, `${block === undefined ? '' : `${standIn(block, l, line)} `}# ${line}`.trimEnd());
    }
  const taken: Taken[] = [];
  for (const [n, line] of [...at].sort(([a], [b]) => a - b)) {
    const run = taken.at(-1);
    if (run !== undefined && run.last === n - 1) {
      run.last = n;
      run.lines.push(line);
    } else taken.push({ first: n, last: n, lines: [line] });
  }
  return taken;
}

/** What keeps the block whole in the place of a line: of a case its pattern and the end of its clause too. */
function standIn(block: Block, l: Line, raw: string): string {
  if (!block.isCase) return ':';
  const pattern = /^\s*(\(?[^()]*\))(?:\s|$)/.exec(raw)?.[1] ?? ':';
  return /;;&?\s*$/.test(l.full) ? `${pattern} ;;` : pattern;
}

/**
 * Lines of the file joined as the shell joins them: by a backslash, by open quotes, by a here-document. Null where one
 * never ends.
 */
function logicalLines(raw: readonly string[]): Line[] | null {
  const lines: Line[] = [];
  for (let i = 0; i < raw.length; i += 1) {
    const first = i;
    let text = raw[i] ?? '';
    let read = words(text);
    while (read === null || /(?:^|[^\\])(?:\\\\)*\\$/.test(read.full)) {
      i += 1;
      if (i >= raw.length || i - first > MAX_JOINED) return null;
      text = `${text}\n${raw[i]}`;
      read = words(text);
    }
    const here = /(?<!<)<<-?\s*\\?["']?([A-Za-z_]\w*)/.exec(read.full)?.[1];
    if (here !== undefined) {
      do i += 1;
      while (i < raw.length && raw[i]?.trim() !== here);
      if (i >= raw.length) return null;
    }
    const bare = read.bare
      .split(/;;&?|;&|&&|\|\||(?<![<>&])[;|](?!&)|(?<![<>&])&(?![&>])|\n/)
      .map((c) => c.trim())
      .filter((c) => c !== '');
    lines.push({ first: first + 1, last: i + 1, full: read.full, moves: MOVES.test(read.full), ...readCommands(bare) });
  }
  return lines;
}

/** The text without its comment, with and without what its quotes hold; null when a quote is open at its end. */
function words(text: string): { full: string; bare: string } | null {
  let full = '';
  let bare = '';
  let quote = '';
  for (let i = 0; i < text.length; i += 1) {
    const c = text[i] ?? '';
    if (quote === '' && c === '#' && /^[\s;&|(]?$/.test(i === 0 ? '' : (text[i - 1] ?? ''))) {
      const end = text.indexOf('\n', i);
      if (end < 0) break;
      i = end - 1;
      continue;
    }
    full += c;
    if (c === '\\' && quote !== "'") {
      i += 1;
      const next = text[i] ?? '';
      full += next;
      if (quote === '' && next !== '\n') bare += 'x';
      continue;
    }
    if (quote !== '') {
      if (c === quote) {
        quote = '';
        bare += c;
      }
      continue;
    }
    if (c === '"' || c === "'") quote = c;
    bare += c;
  }
  return quote === '' ? { full: full.replace(/\\\n/g, ' '), bare } : null;
}

const FUNCTION = /^(?:function\s+([\w:.-]+)\s*(?:\(\s*\))?|([\w:.-]+)\s*\(\s*\))\s*(\{?)/;
const LEAD = /^(?:then|do|else|!|time)\b\s*/;
const OPENS = /^(?:if|for|while|until|case|select)\b/;
const CLOSES = /^(?:fi|done|esac)\b|^\}/;
/** A line of these alone belongs to its block's structure. */
const PART = /^\s*(?:(?:else|elif|then|do)\b|\{)/;

/** The script as a tree of its blocks; null where they do not close as they open. */
function blocksOf(lines: readonly Line[]): Node[] | null {
  const root: Node[] = [];
  const open: Block[] = [];
  let named: { name: string | null; line: Line } | null = null;
  for (const line of lines) {
    if (line.commands.length + line.events.length === 0 && !PART.test(line.full)) continue;
    const into = open.at(-1)?.inner ?? root;
    if (named === null && isWhole(line.events)) {
      // A part of the block that it stands in, or a whole command, blocks of its own included.
      const within = open.at(-1);
      if (within !== undefined && PART.test(line.full)) within.parts.push(line);
      else into.push(line);
      continue;
    }
    for (const e of line.events) {
      if (e.kind === 'name') named = { name: e.name, line };
      else if (e.kind === 'open') {
        const block: Block = { ...e, opener: line, closer: null, parts: [], inner: [] };
        if (named !== null) Object.assign(block, { name: named.name, opener: named.line, parts: [line] });
        named = null;
        (open.at(-1)?.inner ?? root).push(block);
        open.push(block);
      } else {
        const block = open.pop();
        if (block === undefined) return null;
        block.closer = line;
      }
    }
    // A function's name, and no brace behind it.
    if (named !== null && named.line !== line) return null;
  }
  return open.length === 0 && named === null ? root : null;
}

/** Whether a line closes what it opens, and nothing else. */
function isWhole(events: readonly Event[]): boolean {
  let depth = 0;
  for (const e of events) {
    if (e.kind === 'name') return false;
    depth += e.kind === 'open' ? 1 : -1;
    if (depth < 0) return false;
  }
  return depth === 0;
}

function readCommands(bare: readonly string[]): { commands: string[]; events: Event[] } {
  const events: Event[] = [];
  const commands: string[] = [];
  const lead = (c: string): string => {
    const found = LEAD.exec(c);
    return found === null ? c : lead(c.slice(found[0].length));
  };
  for (const whole of bare) {
    let c = lead(whole);
    // A pattern of case, with its command behind it.
    c = lead(/^\(?[^()\s|]+(?:\s*\|\s*[^()\s|]+)*\)\s+(.*)$/.exec(c)?.[1] ?? c);
    const def = FUNCTION.exec(c);
    if (def !== null) {
      events.push({ kind: def[3] === '{' ? 'open' : 'name', name: def[1] ?? def[2] ?? null, isCase: false });
      c = lead(c.slice(def[0].length).trim());
    } else if (/^\{(?:\s|$)/.test(c)) {
      events.push({ kind: 'open', name: null, isCase: false });
      c = lead(c.slice(1).trim());
    }
    const opens = OPENS.exec(c)?.[0];
    if (opens !== undefined) {
      events.push({ kind: 'open', name: null, isCase: opens === 'case' });
      c = /^(?:if|while|until)\b/.test(c) ? lead(c.slice(opens.length).trim()) : '';
    }
    if (CLOSES.test(c)) {
      events.push({ kind: 'close', name: null, isCase: false });
      c = '';
    }
    if (c !== '') commands.push(c);
  }
  return { commands, events };
}
