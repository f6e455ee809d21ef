/** `npm run bench`: compares the target with others on this machine (bench/run.ts; `-- --help` tells the options). */
import process from 'node:process';
import { ensurePackages } from './debian.mjs';
import { prepare } from './prepare.mjs';

const NEEDED = [
  { program: 'gcc', package: 'gcc' },
  { file: '/usr/include/stdlib.h', package: 'libc6-dev' },
  { file: '/usr/include/iscsi/iscsi.h', package: 'libiscsi-dev' },
  { program: 'setpriv', package: 'util-linux' },
];
const PEERS = [
  { program: 'tgtd', package: 'tgt' },
  { program: 'istgt', package: 'istgt' },
];

prepare();
const asked = process.argv.slice(2);
const alone = asked.includes('--help') || asked.includes('none');
if (ensurePackages(alone ? NEEDED : [...NEEDED, ...PEERS]).length > 0) process.exitCode = 1;
else await import('../dist/bench/run.js');
