/** The version of the pinned Node, from tools/node.mjs. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { projectDir } from './image.ts';

export const NODE: string =
  /version: '([^']+)'/.exec(readFileSync(path.join(projectDir, 'tools/node.mjs'), 'utf8'))?.[1] ?? '';
