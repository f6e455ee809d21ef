/**
 * A YAML text as plain data, and where in the text each value stands.
 *
 * js-yaml's event list carries offsets: it is walked once beside the constructed value to find the place of every
 * JSON pointer. Aliases are refused before that (they can multiply a small file), and so are several documents.
 */
import { YAMLException, constructFromEvents, getScalarValue, parseEvents } from 'js-yaml';
import type { Event } from 'js-yaml';
import type { Mistake } from './mistakes.js';

/** 1-based place in a text. */
export interface Place {
  line: number;
  column: number;
}

export interface YamlDocument {
  value: unknown;
  /** Where the value of a JSON pointer stands; `key`: where that key of it stands. Unknown ones: the nearest parent. */
  locate(pointer: string, key?: string): Place;
}

const EVENT = { DOCUMENT: 1, SEQUENCE: 2, MAPPING: 3, SCALAR: 4, POP: 6 } as const;

/** One step of a JSON pointer (RFC 6901 §3). */
export function escapePointer(key: string): string {
  return key.replaceAll('~', '~0').replaceAll('/', '~1');
}

interface Offsets {
  values: Map<string, number>;
  keys: Map<string, number>;
}

function findOffsets(source: string, events: readonly Event[]): Offsets {
  const offsets: Offsets = { values: new Map([['', 0]]), keys: new Map() };
  let next = 1;
  const walk = (pointer: string): void => {
    const event = events[next++];
    if (event.type === EVENT.SCALAR) offsets.values.set(pointer, Math.max(event.valueStart, 0));
    if (event.type === EVENT.SEQUENCE) {
      offsets.values.set(pointer, event.start);
      for (let index = 0; events[next].type !== EVENT.POP; index++) walk(`${pointer}/${index}`);
      next++;
    }
    if (event.type === EVENT.MAPPING) {
      offsets.values.set(pointer, event.start);
      while (events[next].type !== EVENT.POP) {
        const key = events[next];
        const isScalar = key.type === EVENT.SCALAR;
        const child = `${pointer}/${isScalar ? escapePointer(getScalarValue(source, key)) : '?'}`;
        if (isScalar) offsets.keys.set(child, Math.max(key.valueStart, 0));
        walk(child);
        // The walk over the key has set the child's place; the walk over its value sets it again.
        walk(child);
      }
      next++;
    }
  };
  walk('');
  return offsets;
}

function placeOf(source: string, offset: number): Place {
  const before = source.slice(0, offset);
  const lineStart = before.lastIndexOf('\n') + 1;
  return { line: before.split('\n').length, column: offset - lineStart + 1 };
}

/** Parses one document, or tells the mistake that stopped it. */
export function parseYaml(source: string): { document: YamlDocument } | { mistake: Mistake } {
  try {
    const events = parseEvents(source, { maxDepth: 32 });
    const documents = constructFromEvents(events, { source, maxAliases: 0 });
    if (documents.length !== 1) {
      const message =
        documents.length === 0 ? 'the file is empty' : 'the file holds more than one YAML document';
      return { mistake: { line: 1, column: 1, path: '', message } };
    }
    const offsets = findOffsets(source, events);
    const locate = (pointer: string, key?: string): Place => {
      const keyOffset = key === undefined ? undefined : offsets.keys.get(`${pointer}/${escapePointer(key)}`);
      if (keyOffset !== undefined) return placeOf(source, keyOffset);
      for (let path = pointer; ; path = path.slice(0, path.lastIndexOf('/'))) {
        const offset = offsets.values.get(path);
        if (offset !== undefined) return placeOf(source, offset);
      }
    };
    return { document: { value: documents[0], locate } };
  } catch (error) {
    if (!(error instanceof YAMLException)) throw error;
    const { line = 0, column = 0 } = error.mark ?? {};
    const message = error.reason.includes('maxAliases')
      ? 'aliases (*name) are not allowed here'
      : error.reason;
    return { mistake: { line: line + 1, column: column + 1, path: '', message } };
  }
}
