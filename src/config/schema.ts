/** The published JSON Schema (config/cldd.schema.json) as the validator of the daemon. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv } from 'ajv';
import type { ErrorObject } from 'ajv';
import { PACKAGE_ROOT } from '../package-root.js';
import type { Mistake } from './mistakes.js';
import type { YamlDocument } from './yaml-document.js';
import type { RawConfiguration } from './raw.js';

export const SCHEMA_FILE = join(PACKAGE_ROOT, 'config', 'cldd.schema.json');

function compile() {
  const schema = JSON.parse(readFileSync(SCHEMA_FILE, 'utf8')) as object;
  return new Ajv({ allErrors: true, strict: true }).compile<RawConfiguration>(schema);
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

/** Checks the shape; no mistakes: the value is a RawConfiguration. */
export function checkShape(document: YamlDocument): { raw: RawConfiguration } | { mistakes: Mistake[] } {
  validate ??= compile();
  const { value } = document;
  if (validate(value)) return { raw: value };
  const mistakes = (validate.errors ?? []).map((error) => {
    const { key, message } = explain(error);
    return { ...document.locate(error.instancePath, key), path: error.instancePath, message };
  });
  return { mistakes };
}
