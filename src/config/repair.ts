/**
 * Makes a document whose shape is wrong right enough to be looked at for its sense, too, so that every mistake is told
 * at once: what is wrong is taken out, what is missing gets a stand-in.
 */
import type { ErrorObject } from 'ajv';

/** What stands in for a missing text; being no name or path of anybody, it collides with nothing. */
let standIns = 0;

/** Mends what one error is about. False: it can't be mended, since taking it out would move its neighbours. */
export function mend(document: unknown, { instancePath, keyword, params }: ErrorObject): boolean {
  const named = params as Record<string, unknown>;
  const keys = instancePath.split('/').slice(1).map(unescapePointer);
  if (keyword === 'additionalProperties') keys.push(String(named['additionalProperty']));
  if (keyword === 'required') keys.push(String(named['missingProperty']));
  const last = keys.pop();
  const holder = keys.reduce<unknown>((value, key) => member(value, key), document);
  if (last === undefined || typeof holder !== 'object' || holder === null || Array.isArray(holder))
    return false;
  const record = holder as Record<string, unknown>;
  if (keyword === 'required') record[last] = `\u0000${String(standIns++)}`;
  else return Reflect.deleteProperty(record, last);
  return true;
}

/** Where the mistake is, as a JSON pointer: complaints about the sense of that place are of our own making. */
export function placeOf({ instancePath, keyword, params }: ErrorObject): string {
  if (keyword !== 'required') return instancePath;
  return `${instancePath}/${String((params as Record<string, unknown>)['missingProperty'])}`;
}

function member(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined;
}

/** RFC 6901 §4. */
function unescapePointer(token: string): string {
  return token.replaceAll('~1', '/').replaceAll('~0', '~');
}
