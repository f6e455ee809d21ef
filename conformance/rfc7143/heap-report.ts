/**
 * Put under a daemon by `node --import`: on SIGUSR2 it collects its garbage and writes down what it then holds. What a
 * process takes of the system (VmRSS) says little: V8 and the allocator keep what they once had.
 */
import { writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { reportFile } from './heap.js';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

process.on('SIGUSR2', () => {
  // What a finaliser lets go of is collected by the second.
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  writeFileSync(reportFile(process.pid), `${Math.round((heapUsed + external) / 1024)}\n`);
});
