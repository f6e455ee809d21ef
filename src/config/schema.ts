/** The published JSON Schema (config/cldd.schema.json) as the validator of the daemon. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ErrorObject } from 'ajv';
import { newAjv } from '../json-schema.js';
import { PACKAGE_ROOT } from '../package-root.js';
import { mend, placeOf } from './repair.js';
import type { Mistake } from './mistakes.js';
import type { YamlDocument } from './yaml-document.js';
import type { RawConfiguration } from './raw.js';

export const SCHEMA_FILE = join(PACKAGE_ROOT, 'config', 'cldd.schema.json');

function compile() {
  const schema = JSON.parse(readFileSync(SCHEMA_FILE, 'utf8')) as object;
  return newAjv({ allErrors: true, strict: true }).compile<RawConfiguration>(schema);
}
let validate: ReturnType<typeof compile> | undefined;

function explain(error: ErrorObject): { key?: string; message: string } {
  const params = error.params as Record<string, unknown>;
  switch (error.keyword) {
    case 'additionalProperties':
      return {
        key: String(params['additionalProperty']),
        message: `unknown key "${String(params['additionalProperty'])}"`,
      };
    case 'required':
      return { message: `key "${String(params['missingProperty'])}" is missing` };
    case 'enum':
      return { message: `must be one of ${(params['allowedValues'] as unknown[]).join(', ')}` };
    case 'type':
      return { message: `must be ${String(params['type'])}` };
    case 'minLength':
      return { message: 'must not be empty' };
    case 'minItems':
      return { message: 'must have at least one entry' };
    default:
      return { message: error.message ?? error.keyword };
  }
}

/** Rounds of mending, each of which can only bring out what the last one hid. */
const ROUNDS_MAX = 8;

/** The document as a configuration, what is wrong with its shape, and the places of which no more need be said. */
export interface Shape {
  mistakes: Mistake[];
  /** Undefined if the shape is too far off to be looked at for its sense. */
  raw: RawConfiguration | undefined;
  blamed: ReadonlySet<string>;
}

export function checkShape(document: YamlDocument): Shape {
  validate ??= compile();
  const value: unknown = structuredClone(document.value);
  const mistakes: Mistake[] = [];
  const blamed = new Set<string>();
  for (let round = 0; round < ROUNDS_MAX; round++) {
    if (validate(value)) return { mistakes, raw: value, blamed };
    const errors = validate.errors ?? [];
    for (const error of errors) {
      const { key, message } = explain(error);
      const place = placeOf(error);
      // A stand-in may be of the wrong type, and what was taken out is missing, which are not the user's mistakes.
      if (blamed.has(error.instancePath) || blamed.has(place)) continue;
      blamed.add(place);
      mistakes.push({ ...document.locate(error.instancePath, key), path: error.instancePath, message });
    }
    if (!errors.map((error) => mend(value, error)).every(Boolean)) break;
  }
  return { mistakes, raw: undefined, blamed };
}
