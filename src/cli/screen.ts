/** A text that takes the place of the one before it on a terminal, without flicker and without scrolling. */

const ESC = '\u001b';
/** ECMA-48: CUP, cursor home; EL, erase to the end of the line; ED, erase what is below. */
const HOME = `${ESC}[H`;
const ERASE_LINE = `${ESC}[K`;
const ERASE_BELOW = `${ESC}[J`;
const RESET = `${ESC}[0m`;
/** One SGR sequence, which takes no room, or one character. */
const PIECE = new RegExp(`${ESC}\\[[\\d;]*m|.`, 'gsu');

export interface ScreenSize {
  columns: number;
  rows: number;
}

/** What to write for a text on a screen: lines are cut at its edge, and lines that have no room are counted. */
export function frame(text: string, { columns, rows }: ScreenSize): string {
  const lines = text.split('\n');
  const shown = lines.length <= rows ? lines : lines.slice(0, rows - 1);
  if (shown.length < lines.length) shown.push(`… ${lines.length - shown.length} more lines`);
  return `${HOME}${shown.map((line) => cut(line, columns) + ERASE_LINE).join('\n')}${ERASE_BELOW}`;
}

function cut(line: string, columns: number): string {
  let room = columns;
  let taken = '';
  for (const [piece] of line.matchAll(PIECE)) {
    const isStyle = piece.length > 2;
    if (!isStyle && room-- === 0) return `${taken.replace(/.$/su, '…')}${RESET}`;
    taken += piece;
  }
  return taken;
}
