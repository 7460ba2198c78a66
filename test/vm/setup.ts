import { beforeEach } from 'vitest';
import { skipped } from './suite.ts';

// Here and not in the files, so that no file can forget it, and every test is counted as skipped.
beforeEach(({ skip }) => {
  skip(skipped, 'HOSTDEV_VM=skip');
});
