/**
 * Licences of the packages that the program ships with, as docs/licences.md lists them.
 *   node scripts/licences.mjs            writes docs/licences.md; exit code 1 if a licence is not on the list
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Licences that let an MIT program be given on with the package, their text kept. */
export const ALLOWED = new Set([
  'MIT',
  'ISC',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'Apache-2.0',
  '0BSD',
  'Python-2.0',
  'PSF-2.0',
]);

/** Packages of the lock file that are not for development only, with the licence that each itself states. */
export function productionPackages() {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  return Object.entries(packages)
    .filter(([path, { dev, devOptional }]) => path !== '' && !dev && !devOptional)
    .map(([path, locked]) => {
      const { name, version, license } = JSON.parse(readFileSync(join(root, path, 'package.json'), 'utf8'));
      return {
        name,
        version,
        locked: locked.version,
        licence: typeof license === 'string' ? license : 'unstated',
      };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** The document's text. */
export function document(packages) {
  const rows = packages.map(({ name, version, licence }) => `| ${name} | ${version} | ${licence} |`);
  return `# Licences

cldd is under the MIT licence. It runs with these packages, each unchanged and installed by npm from the lock file.
\`node scripts/licences.mjs\` writes this list; a test holds it against what is installed, and against the licences that
go together with MIT: ${[...ALLOWED].join(', ')}.

| package | version | licence |
|---|---|---|
${rows.join('\n')}
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const packages = productionPackages();
  const wrong = packages.filter(({ licence }) => !ALLOWED.has(licence));
  for (const { name, licence } of wrong)
    process.stderr.write(`${name}: licence ${licence} is not on the list\n`);
  if (wrong.length === 0) writeFileSync(join(root, 'docs', 'licences.md'), document(packages));
  process.exitCode = wrong.length === 0 ? 0 : 1;
}
