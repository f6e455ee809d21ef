/** How far a copy is, on stderr: a line that changes on a terminal, a line now and then elsewhere. */
import { bytes, duration } from '../output.js';

const TERMINAL_MS = 200;
const ELSEWHERE_MS = 15_000;

export class Progress {
  readonly #what: string;
  readonly #totalBytes: number;
  readonly #quiet: boolean;
  readonly #began = performance.now();
  #told = performance.now();
  #doneBytes = 0;

  constructor(what: string, totalBytes: number, quiet: boolean) {
    this.#what = what;
    this.#totalBytes = totalBytes;
    this.#quiet = quiet;
  }

  add(count: number): void {
    this.#doneBytes += count;
    const now = performance.now();
    const terminal = process.stderr.isTTY;
    if (this.#quiet || now - this.#told < (terminal ? TERMINAL_MS : ELSEWHERE_MS)) return;
    this.#told = now;
    process.stderr.write(terminal ? `\r${this.#line(now)}\u001b[K` : `${this.#line(now)}\n`);
  }

  end(): void {
    if (!this.#quiet && process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  }

  #line(now: number): string {
    const seconds = Math.max((now - this.#began) / 1000, 0.001);
    const rate = this.#doneBytes / seconds;
    const share = this.#totalBytes === 0 ? 100 : Math.floor((100 * this.#doneBytes) / this.#totalBytes);
    const left = rate > 0 ? duration(((this.#totalBytes - this.#doneBytes) / rate) * 1000) : '?';
    return `${this.#what}: ${share} % of ${bytes(this.#totalBytes)}, ${bytes(Math.round(rate))}/s, ${left} left`;
  }
}
