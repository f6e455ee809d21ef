/** Text of manual pages (groff_man(7)): the few requests that the pages need, with everything escaped. */
import { lexer } from 'marked';
import type { Token, Tokens } from 'marked';

/** Escapes text within a line. */
export function text(plain: string): string {
  return plain
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('~', '\\(ti')
    .replaceAll('^', '\\(ha')
    .replaceAll('`', '\\(ga')
    .replace(/^([.'])/gm, '\\&$1')
    .replace(/[\u0080-\u{10ffff}]/gu, (letter) => `\\[u${hex(letter)}]`);
}

/** groff_char(7) has characters beyond ASCII by their code points. */
function hex(letter: string): string {
  return (letter.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0');
}

export const bold = (plain: string): string => `\\fB${text(plain)}\\fR`;
export const italic = (plain: string): string => `\\fI${text(plain)}\\fR`;

/** An argument of a request. */
export const quoted = (plain: string): string => `"${text(plain).replaceAll('"', '\\(dq')}"`;

/** A term with its explanation, both roff already. */
export const item = (term: string, body: string): string => `.TP\n${term}\n${body}`;

export const section = (title: string): string => `.SH ${quoted(title.toUpperCase())}`;
export const subsection = (title: string): string => `.SS ${quoted(title)}`;

/** Lines as they are. */
export const verbatim = (lines: readonly string[]): string =>
  ['.PP', '.in +4n', '.nf', ...lines.map((line) => text(line)), '.fi', '.in'].join('\n');

export function page(
  name: string,
  chapter: number,
  summary: string,
  version: string,
  body: readonly string[],
): string {
  const head = [
    '\'\\" t',
    `.TH ${quoted(name.toUpperCase())} ${String(chapter)} "" ${quoted(`cldd ${version}`)} "cldd manual"`,
    '.ad l',
    '.nh',
    section('Name'),
    `${text(name)} \\- ${text(summary)}`,
  ];
  return `${[...head, ...body].join('\n')}\n`;
}

/** Inline Markdown as roff. */
export function inline(tokens: readonly Token[] | undefined, fallback = ''): string {
  if (tokens === undefined) return text(fallback);
  return tokens
    .map((token): string => {
      switch (token.type) {
        case 'codespan':
          return bold((token as Tokens.Codespan).text);
        case 'strong':
          return `\\fB${inline((token as Tokens.Strong).tokens)}\\fR`;
        case 'em':
          return `\\fI${inline((token as Tokens.Em).tokens)}\\fR`;
        case 'link':
          return inline((token as Tokens.Link).tokens);
        case 'br':
          return '\n.br\n';
        default:
          return text('text' in token ? unescapeEntities(String(token.text)) : token.raw);
      }
    })
    .join('');
}

/** A Markdown document as roff, without its title. @throws {Error} at what no page needs, so that nothing is lost. */
export function markdown(source: string): string[] {
  return lexer(source).flatMap((token): string[] => {
    switch (token.type) {
      case 'space':
        return [];
      case 'heading': {
        const { depth, tokens } = token as Tokens.Heading;
        const title = tokens.map((part) => ('text' in part ? String(part.text) : part.raw)).join('');
        return depth === 1 ? [] : [depth === 2 ? section(title) : subsection(title)];
      }
      case 'paragraph':
        return ['.PP', inline((token as Tokens.Paragraph).tokens)];
      case 'code':
        return [verbatim((token as Tokens.Code).text.split('\n'))];
      case 'list': {
        const { items, ordered } = token as Tokens.List;
        return items.map((one, index) =>
          item(
            ordered ? `${String(index + 1)}.` : '\\(bu',
            one.tokens.map((part) => inline('tokens' in part ? part.tokens : undefined, part.raw)).join('\n'),
          ).replace('.TP', '.TP 4'),
        );
      }
      case 'table':
        return [table(token as Tokens.Table)];
      default:
        throw new Error(`a manual page has no ${token.type}: ${token.raw.slice(0, 60)}`);
    }
  });
}

/** tbl(1): the last column takes the room that the others leave. */
function table({ header, rows }: Tokens.Table): string {
  const cell = (one: Tokens.TableCell): string => `T{\n${inline(one.tokens)}\nT}`;
  const wide = header.length > 6;
  const format = header.map((_, index) => (!wide && index === header.length - 1 ? 'lx' : 'l')).join(' ');
  const line = (cells: Tokens.TableCell[]): string =>
    cells.map((one) => (wide ? inline(one.tokens) : cell(one))).join('\t');
  return ['.PP', '.TS', `${format}.`, line(header), '_', ...rows.map(line), '.TE'].join('\n');
}

function unescapeEntities(plain: string): string {
  return plain
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&#39;', "'")
    .replaceAll('&amp;', '&');
}
