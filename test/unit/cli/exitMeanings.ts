/** The exit codes in words, for the pages that are made from the code. */
import type { EXIT } from '../../../src/errors.ts';

/** What each exit code says to who runs hostdev; an exit code without a line here does not compile. */
export const MEANING: Record<keyof typeof EXIT, string> = {
  done: 'Done; or true; or it was so already.',
  failed: 'It failed, and nothing was left half done.',
  usage: 'The command line is not understood.',
  no: 'The answer is no: false, drifted from the books, not viable, invalid, no capacity.',
  absent: 'What was named is not there, or the name fits several.',
  refused: 'A guard refused, or the device is in use.',
  notPermitted: 'It needs root.',
  undoIncomplete: 'A change failed and was not undone in full; the journal says what is left.',
  unreachable: 'libvirt or the daemon does not answer.',
  timedOut: 'No answer before the deadline.',
  internal: 'A fault of hostdev itself.',
  interrupted: 'Interrupted by a signal, and undone.',
};
