/** Text for people and for programs: everything that commands print goes through here. */
import { styleText } from 'node:util';
import Table from 'cli-table3';
import prettyBytes from 'pretty-bytes';

type Style = Parameters<typeof styleText>[0];

/** Prints a line to stdout. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/**
 * Text of others (names of files, words of a daemon or a backup) for a terminal: control characters, which it would obey,
 * are shown as \\xNN, ends of lines included, unless `lines` says that they are ours.
 */
export function printable(text: string, { lines = false } = {}): string {
  return text.replace(
    lines ? /(?!\n)\p{Cc}/gu : /\p{Cc}/gu,
    (letter) => `\\x${letter.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}

/** Prints a value as JSON: the whole of it is one document. JSON itself lets C1 control characters through. */
export function printJson(value: unknown): void {
  print(
    JSON.stringify(value, undefined, 2).replace(
      /[\u007f-\u009f]/g,
      (letter) => `\\u00${letter.charCodeAt(0).toString(16)}`,
    ),
  );
}

/** Whether stdout takes colours: a terminal, and NO_COLOR (no-color.org) isn't set. */
export function hasColours(): boolean {
  return process.stdout.isTTY && !process.env['NO_COLOR'];
}

export function paint(style: Style, text: string): string {
  return hasColours() ? styleText(style, text) : text;
}

/** Binary units, as sizes of discs and partitions are given on Linux. */
export function bytes(count: number): string {
  return prettyBytes(count, { binary: true });
}

/** A whole number with separators. */
export function count(value: number): string {
  return value.toLocaleString('en-GB');
}

const UNITS = [
  { name: 'd', ms: 86_400_000 },
  { name: 'h', ms: 3_600_000 },
  { name: 'min', ms: 60_000 },
  { name: 's', ms: 1000 },
] as const;

/** A time span in its two largest units. */
export function duration(spanMs: number): string {
  const first = UNITS.findIndex(({ ms }) => spanMs >= ms);
  if (first < 0) return '0 s';
  const { name, ms } = UNITS[first];
  const head = `${Math.floor(spanMs / ms)} ${name}`;
  const next = UNITS.at(first + 1);
  if (next === undefined) return head;
  const rest = Math.floor((spanMs % ms) / next.ms);
  return rest > 0 ? `${head} ${rest} ${next.name}` : head;
}

/** A table without borders. */
export function table(head: readonly string[], rows: readonly (readonly string[])[], indent = ''): string {
  const none = [
    'top',
    'top-mid',
    'top-left',
    'top-right',
    'bottom',
    'bottom-mid',
    'bottom-left',
    'bottom-right',
  ];
  const more = ['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid'];
  const chars = Object.fromEntries([...none, ...more].map((name) => [name, '']));
  const made = new Table({
    chars: { ...chars, middle: '  ' },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [], compact: true },
  });
  made.push(
    head.map((name) => paint('dim', name)),
    ...rows.map((row) => row.map((cell) => printable(cell))),
  );
  return made
    .toString()
    .split('\n')
    .map((line) => indent + line.trimEnd())
    .join('\n');
}
