/**
 * How far a copy is, on stderr: a bar with rate and time left on a terminal, and elsewhere a line now and then, as JSON
 * if the command was asked for JSON.
 */
import { bytes, duration, printable } from '../output.js';

const TERMINAL_MS = 200;
const ELSEWHERE_MS = 15_000;
const BAR = 20;

/** `none`: nothing is told; `auto`: a bar or lines. */
export type ProgressStyle = 'none' | 'auto' | 'json';

export function progressStyle({ quiet, json }: { quiet?: boolean; json?: boolean }): ProgressStyle {
  if (quiet === true) return 'none';
  return json === true && !process.stderr.isTTY ? 'json' : 'auto';
}

export class Progress {
  readonly #what: string;
  readonly #totalBytes: number;
  readonly #style: ProgressStyle;
  readonly #began = performance.now();
  readonly #everyMs = process.stderr.isTTY ? TERMINAL_MS : ELSEWHERE_MS;
  /** A terminal has its first bar at once. */
  #told = process.stderr.isTTY ? -Infinity : performance.now();
  #doneBytes = 0;
  #skippedBytes = 0;

  constructor(what: string, totalBytes: number, style: ProgressStyle) {
    this.#what = printable(what);
    this.#totalBytes = totalBytes;
    this.#style = style;
  }

  add(count: number): void {
    this.#doneBytes += count;
    const now = performance.now();
    if (this.#style === 'none' || now - this.#told < this.#everyMs) return;
    this.#told = now;
    this.#tell(now);
  }

  /** Done by an earlier run. */
  skip(count: number): void {
    this.#doneBytes += count;
    this.#skippedBytes += count;
  }

  end(): void {
    if (this.#style === 'auto' && process.stderr.isTTY) process.stderr.write('\r\u001b[K');
    else if (this.#style === 'json') this.#tell(performance.now());
  }

  #tell(now: number): void {
    const seconds = Math.max((now - this.#began) / 1000, 0.001);
    const rate = (this.#doneBytes - this.#skippedBytes) / seconds;
    const leftSeconds = rate > 0 ? Math.max(0, this.#totalBytes - this.#doneBytes) / rate : undefined;
    if (this.#style === 'json') {
      const progress = {
        what: this.#what,
        doneBytes: this.#doneBytes,
        totalBytes: this.#totalBytes,
        bytesPerSecond: Math.round(rate),
        leftSeconds: leftSeconds === undefined ? null : Math.round(leftSeconds),
      };
      process.stderr.write(`${JSON.stringify({ progress })}\n`);
      return;
    }
    const share = this.#totalBytes === 0 ? 1 : Math.min(1, this.#doneBytes / this.#totalBytes);
    const left = leftSeconds === undefined ? '?' : duration(leftSeconds * 1000);
    const figures = `${Math.floor(100 * share)} % of ${bytes(this.#totalBytes)}, ${bytes(Math.round(rate))}/s, ${left} left`;
    if (!process.stderr.isTTY) process.stderr.write(`${this.#what}: ${figures}\n`);
    else {
      const filled = Math.round(BAR * share);
      process.stderr.write(
        `\r${this.#what} [${'#'.repeat(filled)}${'-'.repeat(BAR - filled)}] ${figures}\u001b[K`,
      );
    }
  }
}
