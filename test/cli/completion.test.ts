/** Shell completion in the shells themselves, at a terminal of their own: keys are typed, and what would run is looked at. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { run } from '../../conformance/support/processes.js';
import { commandsOf } from '../../packaging/manual/pages.js';
import { createProgram } from '../../src/cli/program.js';
import { cldd, env, scratch, until } from './support.js';

tap.setTimeout(240_000);
const folder = scratch('completion');
const bin = join(folder, 'bin');
const place = join(folder, 'place');
for (const path of [bin, join(place, 'a folder')]) mkdirSync(path, { recursive: true });
writeFileSync(join(place, 'backup one.cldd'), '');
/** In the place of the program: answers what the daemon would, and else tells how it was called. */
writeFileSync(
  join(bin, 'cldd'),
  `#!/bin/sh
case "$*" in
  'targets --json') printf '[\\n  {\\n    "name": "iqn.2026-01.org.example:files",\\n  },\\n  {\\n    "name": "iqn.2026-01.org.example:mail"\\n  }\\n]\\n' ;;
  'sessions --json') printf '[\\n  {\\n    "id": 41,\\n    "name": "x"\\n  }\\n]\\n' ;;
  *) printf 'RAN'; for word; do printf '<%s>' "$word"; done; echo END ;;
esac
`,
  { mode: 0o755 },
);
const scripts: Record<string, string> = {};
for (const shell of ['bash', 'zsh', 'fish']) {
  const { stdout } = await cldd('completion', shell);
  scripts[shell] = join(folder, shell === 'zsh' ? '_cldd' : shell);
  writeFileSync(scripts[shell], stdout);
}

/** What is typed, with its tabs, and the words that the program is called with. */
const TYPED: [string, string[]][] = [
  ['sla\tena\t--cr\t', ['slave', 'enable', '--crash-consistent']],
  ['comp\tz\t', ['completion', 'zsh']],
  ['log\tde\t', ['log-level', 'debug']],
  ['slave disable iqn.2026-01.org.example:m\t', ['slave', 'disable', 'iqn.2026-01.org.example:mail']],
  ['session ki\t4\t', ['session', 'kill', '41']],
  ['verify ba\t', ['verify', 'backup one.cldd']],
  ['prune a\t', ['prune', 'a folder']],
  ['backup --to b\t--inc\t', ['backup', '--to', 'backup one.cldd', '--incremental']],
  ['config ch\tb\t', ['config', 'check', 'backup one.cldd']],
  ['serve --log-level wa\t', ['serve', '--log-level', 'warn']],
];

/** Types at a shell at a terminal, and waits each time for what it says. */
async function type(command: string): Promise<string[][]> {
  const shell = spawn('script', ['-qec', command, '/dev/null'], {
    cwd: place,
    env: { ...env, PATH: `${bin}:${process.env['PATH'] ?? ''}`, TERM: 'dumb', HOME: folder, NO_COLOR: '1' },
  });
  let said = '';
  shell.stdout.on('data', (chunk: Buffer) => (said += chunk.toString('utf8')));
  const ended = once(shell, 'exit');
  const answers: string[][] = [];
  const runs = (): string[] => [...said.matchAll(/RAN(.*?)END/gs)].map(([, words]) => words);
  shell.stdin.write('cldd begin\n');
  await until('a prompt', () => runs().length === 1);
  for (const [line] of TYPED) {
    shell.stdin.write(`cldd ${line}\n`);
    await until(line, () => runs().length === answers.length + 2);
    const words = runs().at(-1) ?? '';
    answers.push([...words.matchAll(/<(.*?)>/g)].map(([, word]) => word.replace(/\/$/, '')));
  }
  shell.stdin.write('exit\n');
  await ended;
  return answers;
}

const expected = TYPED.map(([, words]) => words);

void tap.test('bash', needing('script', 'bash'), async (t) => {
  const rc = join(folder, 'bashrc');
  writeFileSync(rc, `source ${scripts['bash']}\nbind 'set bell-style none'\n`);
  t.same(await type(`bash --noprofile --rcfile ${rc} -i`), expected);
});

void tap.test('zsh', needing('script', 'zsh'), async (t) => {
  writeFileSync(
    join(folder, '.zshrc'),
    `unsetopt beep zle_bracketed_paste; fpath=(${folder} $fpath); autoload -U compinit; compinit -u -d ${folder}/dump\n`,
  );
  t.same(await type(`env ZDOTDIR=${folder} zsh -d -i`), expected);
});

void tap.test('fish', needing('fish'), async (t) => {
  // It tells what it would offer without a terminal.
  for (const [line, words] of TYPED) {
    const typed = line.split('\t').filter((part) => part !== '');
    let before = 'cldd ';
    for (const part of typed) {
      before += part;
      const ask = `source ${scripts['fish']}; complete -C ${JSON.stringify(before)}`;
      const { stdout } = await run('fish', ['--no-config', '-c', ask], {
        cwd: place,
        env: { ...env, PATH: `${bin}:${process.env['PATH'] ?? ''}`, HOME: folder },
      });
      const offered = stdout.split('\n').filter((one) => one !== '');
      t.equal(offered.length, 1, `${before}: ${offered.join(' | ')}`);
      const [word = ''] = (offered.at(0) ?? '').split('\t');
      t.ok(words.includes(word.replace(/\/$/, '')), `${before} -> ${word}`);
      before = `${before.slice(0, before.lastIndexOf(' ') + 1)}${word.replaceAll(' ', '\\ ')} `;
    }
  }
});

void tap.test('the scripts have every command and every option of the parser', async (t) => {
  const commands = commandsOf(await createProgram());
  for (const shell of ['bash', 'zsh', 'fish']) {
    const script = readFileSync(scripts[shell], 'utf8');
    for (const { name, command } of commands) {
      t.ok(script.includes(name.split(' ').at(-1) ?? '?'), `${shell}: ${name}`);
      for (const { long } of command.options) {
        const there = shell === 'fish' ? `-l ${long?.slice(2)}` : (long ?? '?');
        t.ok(script.includes(there), `${shell}: ${name} ${long}`);
      }
    }
  }
});

void tap.test('an unknown shell is wrong usage', async (t) => {
  t.equal((await cldd('completion', 'tcsh')).code, 2);
});
