/**
 * Every function of the addon at HOSTDEV_ADDON, called with what it is not made for: it raises, or answers; it ends
 * nothing. Prints how many calls that were.
 */
import { createRequire } from 'node:module';

const addon = createRequire(import.meta.url)(process.env.HOSTDEV_ADDON);
const scratch = process.env.FUZZ_SCRATCH;
const helper = addon.openHelper('/nowhere/hostdev-native', scratch);
const texts = ['', '\0', `${scratch}\0/etc`, '\ud800', '\u{1f600}', 'x'.repeat(70_000), '../../..', scratch, 'W'];
const numbers = [Number.NaN, -1, 0, 1.5, -(2 ** 31), 2 ** 32, 2 ** 53, Number.POSITIVE_INFINITY];
const others = [
  undefined,
  null,
  true,
  {},
  [],
  [[]],
  [helper],
  [{}],
  helper,
  Symbol('s'),
  1n,
  () => 0,
  new Uint8Array(3),
];
const values = [...texts, ...numbers, ...others];

let state = 1;
/** The same calls each time. */
const pick = (list) => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return list[(state >>> 8) % list.length];
};

let [calls, raised] = [0, 0];
// What systemLog is given stands in this machine's log: only what is no text is tried.
for (const name of Object.keys(addon).sort()) {
  // Descriptors of this process are no text: closing 1 and 2 would be done as asked.
  const first = name === 'unlock' ? [...texts, ...others, -1, Number.NaN, 2 ** 30] : values;
  for (const value of first) {
    for (let more = 0; more < 40; more += 1) {
      const words = [value, pick(values), pick(values), pick(values)].slice(0, more % 5);
      // A wait of a million seconds is what was asked for.
      if (name === 'waitHelpers') words[1] = pick([Number.NaN, -1, 0, 'x', null]);
      // Locks in the current folder would be files there.
      if (name === 'tryLock' && typeof value === 'string') words[0] = `${scratch}/${value.replaceAll('/', '_')}`;
      if (name === 'systemLog') words[0] = pick([...numbers, ...others]);
      calls += 1;
      try {
        addon[name](...words);
      } catch {
        raised += 1;
      }
    }
  }
}
process.stdout.write(`${calls} ${raised}\n`);
