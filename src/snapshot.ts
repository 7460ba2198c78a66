/**
 * The script of node's startup snapshot: what node, and hostdev's layers of everyday, are after they were loaded, as one file. Where node was built without a snapshot
 * of its own (Debian's) starting from ours is faster (docs/decisions/0005-bundle.md). Run by src/warm.ts; native/launch.cc starts from it.
 */
import { join } from 'node:path';
import { startupSnapshot } from 'node:v8';
import { load, start } from './layers.ts';

for (const layer of ['hostdev', 'input', 'common', 'engine']) load(layer);

startupSnapshot.setDeserializeMainFunction(() => {
  // As if the script had been named: node, script, words.
  process.argv.splice(1, 0, join(__dirname, 'hostdev.js'));
  start();
});
