/** What `npm start` and `npm test` need before they can do their work: packages installed, TypeScript compiled. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder that holds package.json. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Oldest Node that the code runs on; package.json's "engines" says the same. */
const NODE_MIN = [20, 9];

/** Something that the user can put right: its message is all that is shown. */
export class PrepareError extends Error {}

/** Runs a program in the project's folder with its output shown on stderr. */
function run(what, program, args) {
  const { status, signal, error } = spawnSync(program, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (error) throw new PrepareError(`${what} failed: ${program} can't be run (${error.code})`);
  if (status !== 0)
    throw new PrepareError(`${what} failed (${signal ?? `exit code ${status}`}); its messages are above`);
}

/** Refuses a Node that is too old to run the code. */
export function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < NODE_MIN[0] || (major === NODE_MIN[0] && minor < NODE_MIN[1]))
    throw new PrepareError(`Node ${NODE_MIN.join('.')} or newer is needed, this is ${process.versions.node}`);
}

/** Installs the locked packages, if they are missing or older than the lock file. */
export function install() {
  const mark = join(root, 'node_modules', '.package-lock.json');
  const isCurrent =
    existsSync(mark) && statSync(mark).mtimeMs >= statSync(join(root, 'package-lock.json')).mtimeMs;
  if (isCurrent) return;
  process.stderr.write('Installing packages (npm ci) …\n');
  run('the installation of packages', process.platform === 'win32' ? 'npm.cmd' : 'npm', [
    'ci',
    '--no-audit',
    '--no-fund',
  ]);
}

/** The youngest change of a TypeScript source, in milliseconds since 1970. */
function newestSource(folder) {
  let newest = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) newest = Math.max(newest, newestSource(path));
    else if (entry.name.endsWith('.ts')) newest = Math.max(newest, statSync(path).mtimeMs);
  }
  return newest;
}

/** Compiles everything into dist/; the compiler itself knows what is up to date. */
export function build() {
  run('the build', process.execPath, [
    join('node_modules', 'typescript', 'bin', 'tsc'),
    '-p',
    'tsconfig.json',
  ]);
}

/** Compiles if a source is younger than the last build. */
export function buildIfNeeded() {
  const main = join(root, 'dist', 'src', 'cli', 'main.js');
  const mark = join(root, 'dist', '.tsbuildinfo');
  if (existsSync(main) && existsSync(mark) && statSync(mark).mtimeMs >= newestSource(join(root, 'src')))
    return;
  process.stderr.write('Building …\n');
  build();
}

/** For scripts that need everything up to date; ends the process with a clear line if that can't be had. */
export function prepare() {
  try {
    checkNode();
    install();
    build();
  } catch (error) {
    if (!(error instanceof PrepareError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  }
}
