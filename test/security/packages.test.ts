/** What comes with the program from others: known licences, exact versions, no scripts at installation. */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../package-root.js';

interface Locked {
  version?: string;
  integrity?: string;
  hasInstallScript?: boolean;
}
interface Licences {
  ALLOWED: ReadonlySet<string>;
  productionPackages: () => { name: string; version: string; locked: string; licence: string }[];
  document: (packages: unknown) => string;
}

const root = packageRoot();
const read = (name: string): string => readFileSync(join(root, name), 'utf8');
const json = (name: string): unknown => JSON.parse(read(name));

void t.test(
  'every package that ships has a licence that goes with MIT, and docs/licences.md lists it',
  async (t) => {
    const script = (await import(join(root, 'scripts/licences.mjs'))) as Licences;
    const packages = script.productionPackages();
    t.ok(packages.length > 10);
    for (const { name, version, locked, licence } of packages) {
      t.ok(script.ALLOWED.has(licence), `${name}: ${licence}`);
      t.equal(version, locked, `${name} is installed as locked`);
    }
    t.equal(read('docs/licences.md'), script.document(packages), 'node scripts/licences.mjs writes it anew');
  },
);

void t.test('versions are exact, and every locked package has its checksum', (t) => {
  const { dependencies, devDependencies } = json('package.json') as Record<string, Record<string, string>>;
  for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies }))
    t.match(version, /^\d+\.\d+\.\d+$/, name);
  const { packages } = json('package-lock.json') as { packages: Record<string, Locked> };
  for (const [path, { integrity }] of Object.entries(packages))
    if (
      path.startsWith('node_modules/') &&
      !path.slice(13).includes('node_modules/') &&
      integrity === undefined
    )
      t.fail(`${path} has no checksum`);
  t.end();
});

void t.test('npm runs no script of a package, and no package that ships is a native addon', (t) => {
  t.match(read('.npmrc'), /^ignore-scripts=true$/m);
  const { packages } = json('package-lock.json') as { packages: Record<string, Locked & { dev?: boolean }> };
  for (const [path, { dev = false, hasInstallScript = false }] of Object.entries(packages)) {
    if (path === '' || dev || !existsSync(join(root, path))) continue;
    t.notOk(hasInstallScript, path);
    t.notOk(
      readdirSync(join(root, path), { recursive: true }).some((name) => String(name).endsWith('.node')),
      path,
    );
  }
  t.end();
});
