/**
 * One file out of an initramfs (Documentation/driver-api/early-userspace/buffer-format.rst): archives of "newc" one
 * after the other, plain or compressed. Only read, never unpacked; what is broken ends the reading.
 */
import { spawn } from 'node:child_process';
import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';

/** What is looked for, and what was seen on the way there. */
export type Member = { bytes: Buffer | null; names: ReadonlySet<string> };

const HEADER = 110;
const MAX_NAME = 4096;
/** Of the file that is asked for. */
const MAX_MEMBER = 4 * 1024 * 1024;

/** How a compressed archive begins, and what unpacks it: stdin to stdout. */
const COMPRESSED: readonly { magic: string; command: readonly string[] | null; tool: string }[] = [
  { magic: '1f8b', command: null, tool: 'gzip' },
  { magic: '28b52ffd', command: ['zstd', '-dcq'], tool: 'zstd' },
  { magic: 'fd377a585a00', command: ['xz', '-dcq'], tool: 'xz' },
  { magic: '02214c18', command: ['lz4', '-dcq'], tool: 'lz4' },
  { magic: '04224d18', command: ['lz4', '-dcq'], tool: 'lz4' },
  { magic: '425a68', command: ['bzip2', '-dcq'], tool: 'bzip2' },
  { magic: '5d0000', command: ['xz', '-dcq', '--format=lzma'], tool: 'xz' },
  { magic: '894c5a4f', command: ['lzop', '-dcq'], tool: 'lzop' },
];

/** Bytes as they come, so many at a time. */
class Stream {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);
  at = 0;

  constructor(source: AsyncIterable<Buffer>) {
    this.#chunks = source[Symbol.asyncIterator]();
  }

  /** The next `n` bytes; fewer at the end. */
  async take(n: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    let missing = n;
    while (missing > 0 && (await this.#more())) {
      const part = this.#rest.subarray(0, missing);
      parts.push(part);
      this.#rest = this.#rest.subarray(part.length);
      missing -= part.length;
    }
    this.at += n - missing;
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
  }

  async skip(n: number): Promise<void> {
    let missing = n;
    while (missing > 0 && (await this.#more())) {
      const gone = Math.min(missing, this.#rest.length);
      this.#rest = this.#rest.subarray(gone);
      missing -= gone;
    }
    this.at += n - missing;
  }

  async #more(): Promise<boolean> {
    while (this.#rest.length === 0) {
      const next = await this.#chunks.next();
      if (next.done === true) return false;
      this.#rest = next.value;
    }
    return true;
  }
}

const padding = (n: number): number => (4 - (n % 4)) % 4;

/**
 * Walks one archive: the member of that name, null at the archive's end. Raises an Error for what is no archive of the
 * kernel's.
 */
async function walk(stream: Stream, wanted: string, names: Set<string>): Promise<Buffer | null> {
  for (;;) {
    const head = (await stream.take(HEADER)).toString('latin1');
    if (!/^07070[12][0-9a-fA-F]{104}$/.test(head)) throw new Error('it is no archive that the kernel reads');
    const field = (n: number): number => Number.parseInt(head.slice(6 + 8 * n, 14 + 8 * n), 16);
    const [size, nameSize] = [field(6), field(11)];
    if (nameSize === 0 || nameSize > MAX_NAME) throw new Error('it is no archive that the kernel reads');
    const [bare = ''] = (await stream.take(nameSize)).toString('latin1').split('\0');
    const name = bare.replace(/^\.?\//, '');
    await stream.skip(padding(HEADER + nameSize));
    if (name === 'TRAILER!!!') return null;
    names.add(name);
    if (name === wanted && size <= MAX_MEMBER) return stream.take(size);
    await stream.skip(size + padding(size));
  }
}

/**
 * The member `wanted` of an initramfs, with the names that came before it. Raises an Error, for people, where the image
 * cannot be read to its end.
 */
export async function memberOf(image: Buffer, wanted: string): Promise<Member> {
  const names = new Set<string>();
  for (let at = 0; at < image.length; ) {
    if (image[at] === 0) {
      at += 1;
      continue;
    }
    const start = image.subarray(at, at + 6).toString('hex');
    if (start.startsWith('303730373')) {
      const stream = new Stream(Readable.from([image.subarray(at)]));
      const bytes = await walk(stream, wanted, names);
      if (bytes !== null) return { bytes, names };
      at += stream.at;
      continue;
    }
    const how = COMPRESSED.find((c) => start.startsWith(c.magic));
    if (how === undefined) throw new Error(`it is packed in a way that is not known (${start})`);
    // What is compressed is the last of it: where it ends is not to be told from outside.
    return { bytes: await unpacked(image.subarray(at), how, wanted, names), names };
  }
  return { bytes: null, names };
}

async function unpacked(
  packed: Buffer,
  { command, tool }: (typeof COMPRESSED)[number],
  wanted: string,
  names: Set<string>,
): Promise<Buffer | null> {
  if (command === null) {
    const plain = createGunzip();
    Readable.from([packed]).pipe(plain);
    return walk(new Stream(plain), wanted, names);
  }
  const [program = '', ...words] = command;
  const child = spawn(program, words, { stdio: ['pipe', 'pipe', 'ignore'] });
  const failed = new Promise<never>((_, reject) => {
    child.once('error', () => reject(new Error(`${tool} is needed to read it, and could not be started`)));
  });
  // Once the file is found nobody reads the rest.
  child.stdin.on('error', () => {});
  child.stdin.end(packed);
  try {
    return await Promise.race([walk(new Stream(child.stdout), wanted, names), failed]);
  } finally {
    child.kill();
  }
}
