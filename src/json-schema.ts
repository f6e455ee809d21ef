/**
 * Checks by JSON Schema. ajv is loaded when the first of them is made: that takes a tenth of a second, and most commands
 * check nothing.
 */
import { createRequire } from 'node:module';
import type * as AjvModule from 'ajv';
import type { Ajv, Options } from 'ajv';

const require = createRequire(import.meta.url);

export function newAjv(options: Options): Ajv {
  const ajv = require('ajv') as typeof AjvModule;
  return new ajv.Ajv(options);
}
