/**
 * One step of a scenario. Paths are relative to sys/bus/pci; an errno is given by its name. A step that expects nothing
 * but success says so by leaving `errno` out.
 */
export type Step =
  /** One open(O_WRONLY) and one write(2). */
  | { write: string; value: string; errno?: string }
  | { read: string; is?: string; errno?: string }
  /** The last component of a link; null when it is not there. */
  | { link: string; is: string | null }
  | { exists: string; is: boolean }
  /** A command of hostdev, and what its JSON holds beside more. */
  | { hostdev: string[]; exit: number; code?: string; changed?: boolean };

export type Scenario = {
  name: string;
  steps: Step[];
  /** Puts back what the steps left: run whatever came of them, and nobody looks at what these writes say. */
  cleanup: { write: string; value: string }[];
};

/** What came of a step, in the step's own words: equal to {@link expected} when all is well. */
export type Outcome = {
  errno?: string;
  text?: string;
  link?: string | null;
  exists?: boolean;
  exit?: number;
  code?: string;
  changed?: boolean;
};

/** What a step must come to. */
export function expected(step: Step): Outcome {
  if ('link' in step) return { link: step.is };
  if ('exists' in step) return { exists: step.is };
  if ('hostdev' in step) {
    return {
      exit: step.exit,
      ...(step.code === undefined ? {} : { code: step.code }),
      ...(step.changed === undefined ? {} : { changed: step.changed }),
    };
  }
  if (step.errno !== undefined) return { errno: step.errno };
  return 'read' in step && step.is !== undefined ? { text: step.is } : {};
}

/** What came of it, without what the step does not ask for. */
export function asked(step: Step, came: Outcome): Outcome {
  const want = expected(step);
  if (came.errno !== undefined) return { errno: came.errno };
  return Object.fromEntries(Object.entries(came).filter(([key]) => key in want));
}

/** For the message of a step that went wrong. */
export function describeStep(step: Step): string {
  if ('write' in step) return `${JSON.stringify(step.value)} to ${step.write}`;
  if ('read' in step) return `read ${step.read}`;
  if ('link' in step) return `link ${step.link}`;
  if ('exists' in step) return `exists ${step.exists}`;
  return `hostdev ${step.hostdev.join(' ')}`;
}
