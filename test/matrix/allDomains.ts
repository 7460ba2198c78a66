/** Every domain that a libvirt's verdict is recorded of. */
import { createHash } from 'node:crypto';
import { randomDomains } from './randomDomains.ts';
import { suggestedDomains } from './suggestedDomains.ts';
import { type MatrixDomain, viommuDomains } from './viommuDomains.ts';

const SEED = 20;
const RANDOM = 300;

export const allDomains = (): MatrixDomain[] => [
  ...viommuDomains(),
  ...randomDomains(SEED, RANDOM),
  ...suggestedDomains(),
];

/** What a recorded verdict was given of: a domain that changed needs a new verdict. */
export const fingerprint = (d: MatrixDomain): string => createHash('sha256').update(d.xml).digest('hex').slice(0, 12);
