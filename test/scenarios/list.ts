/** The one list that the kernel in memory, the FUSE host and the VM's kernel are held to. */
import { HOSTDEV_SCENARIOS } from './hostdev.ts';
import { KERNEL_SCENARIOS } from './kernel.ts';
import type { Scenario } from './step.ts';

export const SCENARIOS: Scenario[] = [...KERNEL_SCENARIOS, ...HOSTDEV_SCENARIOS];
