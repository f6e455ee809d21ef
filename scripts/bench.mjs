/** `npm run bench`: compares the target with others on this machine (bench/run.ts; `-- --help` tells the options). */
import process from 'node:process';
import { BENCH_PROGRAMS, ensurePackages } from './debian.mjs';
import { prepare } from './prepare.mjs';

prepare();
if (ensurePackages(BENCH_PROGRAMS).length > 0) process.exitCode = 1;
else await import('../dist/bench/run.js');
