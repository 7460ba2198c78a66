/** What `node dist/hostdev.js` is. Started by its name it is a line of shell first, which goes by native/launch.cc (test/bundle.mjs). */
import { start } from './layers.ts';

start();
