/**
 * What `hostdev` is: runs the command that process.argv says. In the bundle the rest is loaded from layers beside it,
 * when it is asked for (tools/bundle.mjs).
 */
import { start } from '../cli/main.ts';

start();
