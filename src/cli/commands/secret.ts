/** `cldd secret`: a CHAP secret that nobody has thought of (RFC 7143 §9.2.1 wants random ones, and a means to make them). */
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { Option, type Command } from 'commander';
import { OperationalError } from '../../operational-error.js';
import { examples } from '../examples.js';
import { print, printJson } from '../output.js';

interface SecretOptions {
  bits: string;
  dryRun?: boolean;
  json?: boolean;
  quiet?: boolean;
}

export function addSecret(program: Command): void {
  program
    .command('secret <file>')
    .description('Write a new random CHAP secret to a file of its own, which only its owner can read.')
    .addOption(
      new Option(
        '--bits <number>',
        'how random it is; 96 bits make 16 characters, the most that Windows takes',
      )
        .choices(['96', '128'])
        .default('128'),
    )
    .option('--dry-run', 'only look whether the file is there already')
    .option('--json', 'print JSON')
    .option('-q, --quiet', 'print nothing')
    .addHelpText(
      'after',
      examples('cldd secret /etc/cldd/secrets/backup', 'cldd secret --bits 96 /etc/cldd/secrets/windows'),
    )
    .action(secret);
}

function secret(file: string, { bits, dryRun = false, json, quiet }: SecretOptions): void {
  // Base64 without padding: 6 bits a character, and none that an initiator's configuration would take for something else.
  const text = randomBytes(Number(bits) / 8)
    .toString('base64')
    .replace(/=+$/, '');
  if (!dryRun) write(file, text);
  else if (existsSync(file)) throw existing(file);
  const characters = text.length;
  if (json) printJson({ file, bits: Number(bits), characters, ...(dryRun ? { dryRun } : {}) });
  else if (!quiet && dryRun) print(`${file}: would hold a secret of ${characters} characters`);
  else if (!quiet)
    print(
      `${file}: a secret of ${characters} characters; name it as secretFile, and give it to the initiator`,
    );
}

function write(file: string, text: string): void {
  let fd: number;
  try {
    // Never over another secret, and never readable by others, not for a moment.
    fd = openSync(file, 'wx', 0o600);
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'EEXIST' ? existing(file) : error;
  }
  try {
    writeSync(fd, `${text}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

const existing = (file: string): OperationalError =>
  new OperationalError(
    'FILE_EXISTS',
    `${file} is there already: take another name, or remove it first if nobody uses its secret any more`,
  );
