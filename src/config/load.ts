/** Reads a configuration file: YAML, its shape and its sense; every mistake at once. */
import { readFileSync, statSync } from 'node:fs';
import { OperationalError } from '../operational-error.js';
import type { Configuration } from './configuration.js';
import { ConfigurationError } from './mistakes.js';
import { checkShape } from './schema.js';
import { build } from './semantics.js';
import { parseYaml } from './yaml-document.js';

/** Far above any real configuration; a wrong file name (a disc image) is noticed before it is read. */
const FILE_BYTES_MAX = 4 * 1024 * 1024;

/**
 * The configuration in `file`.
 * @throws {ConfigurationError} with every mistake; OperationalError CONFIG_UNREADABLE if it can't be read.
 */
export function loadConfiguration(file: string): Configuration {
  return parseConfiguration(readText(file), file);
}

/** As loadConfiguration, from its text; `file` names it in messages and relative paths start at its folder. */
export function parseConfiguration(text: string, file: string): Configuration {
  const parsed = parseYaml(text);
  if ('mistake' in parsed) throw new ConfigurationError(file, [parsed.mistake]);
  const { document } = parsed;
  const { raw, mistakes, blamed } = checkShape(document);
  if (raw === undefined) throw new ConfigurationError(file, mistakes);
  const configuration = build(raw, file, (path, message) => {
    if (!blamed.has(path)) mistakes.push({ ...document.locate(path), path, message });
  });
  if (mistakes.length > 0) throw new ConfigurationError(file, mistakes);
  return configuration;
}

function readText(file: string): string {
  try {
    const info = statSync(file);
    if (!info.isFile() || info.size > FILE_BYTES_MAX)
      throw new OperationalError(
        'CONFIG_UNREADABLE',
        `${file} is not a configuration file (a text of at most 4 MiB)`,
      );
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof OperationalError) throw error;
    const { code = 'error' } = error as NodeJS.ErrnoException;
    const hint = code === 'ENOENT' ? 'there is no such file' : `it can't be read (${code})`;
    throw new OperationalError('CONFIG_UNREADABLE', `configuration ${file}: ${hint}`, { cause: error });
  }
}
