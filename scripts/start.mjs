/**
 * `npm start`: from a fresh clone to a served target. Installs, builds, makes a file-backed partition under var/ if
 * there is none, and serves it on 127.0.0.1. Flags (after `--`) or environment variables:
 *   --port N (CLDD_PORT)  --host ADDRESS (CLDD_HOST)  --size SIZE (CLDD_SIZE)  --var FOLDER (CLDD_VAR)
 */
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { PrepareError, buildIfNeeded, checkNode, install, root } from './prepare.mjs';

const TARGET = 'iqn.2026-01.local.cldd:default';
const BIN = join(root, 'bin', 'cldd');

function readOptions() {
  const { env } = process;
  const text = (fallback) => ({ type: 'string', default: fallback });
  try {
    const { values } = parseArgs({
      options: {
        port: text(env.CLDD_PORT ?? '3260'),
        host: text(env.CLDD_HOST ?? '127.0.0.1'),
        size: text(env.CLDD_SIZE ?? '1G'),
        var: text(env.CLDD_VAR ?? join(root, 'var')),
      },
    });
    if (!/^\d{1,5}$/.test(values.port) || Number(values.port) > 65535)
      throw new PrepareError(`--port ${values.port} is not a port`);
    return { ...values, folder: resolve(values.var) };
  } catch (error) {
    throw new PrepareError(error.message);
  }
}

function makeFolder(folder) {
  try {
    mkdirSync(folder, { recursive: true });
    accessSync(folder, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new PrepareError(
      `the folder ${folder} can't be written (${error.code}); choose another one with --var`,
    );
  }
}

/** Where we are, as short as it can be typed. */
function shown(path) {
  const short = relative(process.cwd(), path);
  return short.startsWith('..') ? path : `./${short}`;
}

/** The ready line names the bound port, which differs from the asked one if that was 0. */
function explain(portal, partition, socket) {
  const cldd = `${shown(BIN)}`;
  return `
Data:     ${partition}  (remove it to begin anew)

On this host, as root, with open-iscsi:
  iscsiadm -m discovery -t sendtargets -p ${portal}
  iscsiadm -m node -T ${TARGET} -p ${portal} --login
  lsblk -S                       # LUN 0 is the master, LUN 1 the slave
  iscsiadm -m node -T ${TARGET} -p ${portal} --logout

In another terminal:
  ${cldd} status --socket ${shown(socket)}
  ${cldd} slave enable --socket ${shown(socket)}
  ${cldd} slave disable --socket ${shown(socket)}

Ctrl-C ends it.
`;
}

function initialise(partition, size) {
  if (existsSync(partition)) return;
  const { status } = spawnSync(process.execPath, [BIN, 'init', partition, '--size', size, '--quiet'], {
    stdio: ['ignore', 2, 2],
  });
  if (status !== 0) throw new PrepareError(`no partition could be made in ${partition}; the reason is above`);
}

function serve(partition, socket, { host, port }) {
  const portal = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const args = [
    'serve',
    '--partition',
    partition,
    '--target',
    TARGET,
    '--portal',
    portal,
    '--socket',
    socket,
  ];
  const daemon = spawn(process.execPath, [BIN, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  daemon.stdout.setEncoding('utf8');
  let output = '';
  daemon.stdout.on('data', (text) => {
    process.stdout.write(text);
    if (output.includes('\n')) return;
    output += text;
    const ready = / on (\S+),\d+/.exec(output);
    if (output.includes('\n') && ready) process.stdout.write(explain(ready[1], partition, socket));
  });
  process.on('SIGINT', () => daemon.kill('SIGTERM'));
  process.on('SIGTERM', () => daemon.kill('SIGTERM'));
  daemon.on('exit', (code) => (process.exitCode = code ?? 1));
}

try {
  checkNode();
  const options = readOptions();
  install();
  buildIfNeeded();
  makeFolder(options.folder);
  const partition = join(options.folder, 'default.cldd');
  initialise(partition, options.size);
  serve(partition, join(options.folder, 'cldd.sock'), options);
} catch (error) {
  if (!(error instanceof PrepareError)) throw error;
  process.stderr.write(`npm start: ${error.message}\n`);
  process.exitCode = 1;
}
