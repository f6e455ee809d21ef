/**
 * Runs compiled test files, each in a node process of its own, several at a time, and reads the TAP that they print.
 *
 * tap's own runner would put a hook, with a thread, into each node process that a test starts: it makes the daemons and
 * commands of the tests take twice as long to begin, and they are most of what is run here.
 */
import { spawn } from 'node:child_process';
import { appendFileSync, writeFileSync } from 'node:fs';
import process from 'node:process';
import { root } from './prepare.mjs';

/** What a test file may take, in seconds, unless it says less itself. */
const TIMEOUT_S = Number(process.env.TAP_TIMEOUT ?? 600);
/** How long a file that is told that its time is up may take to say where it hangs. */
const GRACE_MS = 30_000;

/**
 * Runs `files` in their order, `jobs` at a time. Prints a line for each as it ends, with what failed, and writes all TAP
 * to the file `tap`.
 * @returns {Promise<{ passed: number, failed: number, skipped: number, skips: string[] }>} tests of the first level;
 *   a file that fails by itself (a crash, a time-out) counts as one that failed
 */
export async function runFiles(files, { jobs, tap }) {
  writeFileSync(tap, 'TAP version 14\n');
  const counts = { passed: 0, failed: 0, skipped: 0, skips: [] };
  const left = [...files];
  const work = async () => {
    for (let file = left.shift(); file !== undefined; file = left.shift()) {
      const ran = await runFile(file);
      const result = judge(ran);
      appendFileSync(tap, nested(ran, result));
      tell(ran, result);
      for (const key of ['passed', 'failed', 'skipped']) counts[key] += result[key];
      counts.skips.push(...result.skips);
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  return counts;
}

function runFile(file) {
  const startedAt = performance.now();
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--enable-source-maps', file], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, UV_THREADPOOL_SIZE: '16', TAP: '1', TAP_TIMEOUT: String(TIMEOUT_S) },
    });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'])
      child[name].setEncoding('utf8').on('data', (text) => (output[name] += text));
    // By this signal tap reports what it waits for; the file's own timer may have been blocked.
    const alarm = setTimeout(() => child.kill('SIGALRM'), TIMEOUT_S * 1000 + GRACE_MS);
    const end = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_S * 1000 + 2 * GRACE_MS);
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearTimeout(alarm);
      clearTimeout(end);
      resolve({ file, code, signal, ...output, seconds: (performance.now() - startedAt) / 1000 });
    });
  });
}

/** Counts tests by their outcome. Output without its whole plan is a failure, whatever the exit code is. */
function judge({ file, code, signal, stdout }) {
  const result = { passed: 0, failed: 0, skipped: 0, skips: [], fault: undefined };
  let [planned, seen] = [undefined, 0];
  for (const line of stdout.split('\n')) {
    const plan = /^1\.\.(\d+)(?: # (?:SKIP )?(.*))?$/i.exec(line);
    if (plan !== null) planned = Number(plan[1]);
    if (planned === 0 && plan !== null) result.skips.push(`${file} # SKIP ${plan[2] ?? 'without tests'}`);
    const test = /^(not ok|ok) \d+(?: - (.*))?$/.exec(line);
    if (test === null) continue;
    seen++;
    if (/# SKIP/i.test(test[2] ?? '')) result.skips.push(test[2]);
    else if (test[1] === 'ok') result.passed++;
    else result.failed++;
  }
  result.skipped = result.skips.length;
  if (code !== 0 && result.failed === 0) result.fault = `ended with ${signal ?? `exit code ${code}`}`;
  else if (planned === undefined) result.fault = 'printed no plan';
  else if (planned !== seen) result.fault = `planned ${planned} tests and ran ${seen}`;
  if (result.fault !== undefined) result.failed++;
  return result;
}

function nested({ file, stdout, seconds }, { failed }) {
  const inner = stdout.replace(/^TAP version.*\n/, '').replace(/^(?=.)/gm, '    ');
  const outcome = failed === 0 ? 'ok' : 'not ok';
  return `# Subtest: ${file}\n${inner}${outcome} - ${file} # time=${Math.round(seconds * 1000)}ms\n`;
}

function tell({ file, stdout, stderr, seconds }, { failed, fault }) {
  const outcome = failed === 0 ? 'ok' : 'NOT OK';
  process.stdout.write(`${outcome.padEnd(7)}${seconds.toFixed(1).padStart(6)} s  ${file}\n`);
  if (failed === 0) return;
  for (const line of failures(stdout)) process.stdout.write(`    ${line}\n`);
  if (fault !== undefined) process.stdout.write(`    ${file} ${fault}\n`);
  if (stderr !== '') process.stdout.write(stderr.replace(/^(?=.)/gm, '    ! ').replace(/\n?$/, '\n'));
}

/** Lines of tests that failed, with the diagnostics that follow them. */
function failures(stdout) {
  const kept = [];
  let [before, end] = ['', undefined];
  for (const line of stdout.split('\n')) {
    const hasFailed = /^ *not ok /.test(line);
    if (/^ *---$/.test(line) && /^ *not ok /.test(before)) end = line.replace('---', '...');
    if (hasFailed || end !== undefined) kept.push(line);
    if (line === end) end = undefined;
    before = line;
  }
  return kept;
}
