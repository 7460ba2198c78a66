/**
 * A picture of the imports as text: `node test/house/imports.mjs [COMMIT]`. A line for each room of src, the lowest
 * floor first: its floor, files, lines, and the rooms that it imports from. Then the circles, of rooms and of files.
 */
import { execFileSync } from 'node:child_process';
import { dirname, join } from 'node:path';

const commit = process.argv[2] ?? 'HEAD';
const git = (...args) => execFileSync('git', args, { encoding: 'utf8', maxBuffer: 1 << 28 });
const files = git('ls-tree', '-r', '--name-only', commit, 'src')
  .split('\n')
  .filter((f) => f.endsWith('.ts'));
const text = new Map(files.map((f) => [f, git('show', `${commit}:${f}`)]));

/** Rooms that others may import without the folder around them. */
const ROOMS = ['src/nova/grammar'];
const roomOf = (file) => ROOMS.find((r) => file.startsWith(`${r}/`)) ?? file.split('/').slice(0, 2).join('/');

const imports = new Map(
  files.map((f) => [
    f,
    [...text.get(f).matchAll(/(?:from|import\() ?'(\.[^']+)'/g)]
      .map(([, to]) => join(dirname(f), to))
      .filter((t) => text.has(t)),
  ]),
);

/** Height over what imports nothing; what is in a circle has none. */
function floors(graph) {
  const floor = new Map();
  for (let before = -1; before !== floor.size; ) {
    before = floor.size;
    for (const [node, targets] of graph)
      if (!floor.has(node) && targets.every((t) => floor.has(t)))
        floor.set(node, 1 + Math.max(-1, ...targets.map((t) => floor.get(t))));
  }
  return floor;
}

const rooms = new Map();
for (const [file, targets] of imports) {
  const room = roomOf(file);
  const to = rooms.get(room) ?? new Set();
  for (const t of targets) if (roomOf(t) !== room) to.add(roomOf(t));
  rooms.set(room, to);
}
const graph = new Map([...rooms].map(([r, to]) => [r, [...to]]));
const floor = floors(graph);
const name = (room) => room.replace(/^src\//, '');
const of = (room) => files.filter((f) => roomOf(f) === room);
const lines = (room) => of(room).reduce((n, f) => n + text.get(f).split('\n').length - 1, 0);
for (const [room, to] of [...graph].sort(([a], [b]) => (floor.get(a) ?? 99) - (floor.get(b) ?? 99) || (a < b ? -1 : 1)))
  console.log(
    `${`${floor.get(room) ?? '-'}`.padStart(2)}  ${name(room).padEnd(13)} ${`${of(room).length}`.padStart(3)} files ${`${lines(room)}`.padStart(6)} lines  imports ${to.map(name).sort().join(' ')}`,
  );
const circles = (g) => [...g.keys()].filter((n) => !floors(g).has(n)).length;
const arrows = [...graph.values()].reduce((n, to) => n + to.length, 0);
console.log(
  `${graph.size} rooms, ${1 + Math.max(...floor.values())} floors, ${arrows} arrows; in or above a circle: ${circles(graph)} rooms, ${circles(imports)} files`,
);
