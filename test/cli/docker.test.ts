/**
 * packaging/docker/Dockerfile where no Docker runs: its instructions, one by one, in a root of its own for each stage. In
 * the place of the image that a stage begins with are this host's files, which nothing that is written there reaches.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import tap from 'tap';
import { needing } from '../../conformance/support/clients.js';
import { ROOT } from '../../conformance/support/paths.js';
import { run } from '../../conformance/support/processes.js';
import { packageVersion } from '../../src/package-root.js';
import { scratch } from './support.js';

tap.setTimeout(590_000);
const folder = scratch('docker');

interface Stage {
  name: string;
  directory: string;
  env: string;
  user: string;
}

/** Instructions of a Dockerfile, with what belongs to each on one line. */
function instructions(text: string): [word: string, rest: string][] {
  return text
    .replace(/\\\n/g, ' ')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [, word = '', rest = ''] = /^([A-Z]+) +(.*)$/.exec(line) ?? [];
      return [word, rest];
    });
}

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** As `docker build` and `docker run` do it, in a namespace for mounts that ends with the shell. */
function script(dockerfile: string): string {
  const lines = [
    'set -euo pipefail',
    // What docker build is given: the folder without what .dockerignore names.
    `sed 's#^#./#' ${ROOT}/.dockerignore > ${folder}/ignored; mkdir ${folder}/context`,
    `tar -C ${ROOT} --anchored --exclude-from=${folder}/ignored -cf - . | tar -C ${folder}/context -xf -`,
    `copy() { for from in "\${@:1:$#-1}"; do to="\${@: -1}"
       if [ -d "$from" ]; then mkdir -p "$to"; cp -a "$from/." "$to/"; else cp -a "$from" "$to"; fi; done; }`,
  ];
  let stage: Stage = { name: '', directory: '/', env: '', user: '' };
  const settings = new Map<string, string>();
  const root = (name = stage.name): string => `${folder}/${name}/root`;
  const within = (command: string, user = stage.user): string =>
    `chroot ${user === '' ? '' : `--userspec=${user}:${user} `}${root()} env -u NODE_OPTIONS ${stage.env} sh -c ${quote(`cd ${stage.directory} && ${command}`)}`;
  for (const [word, rest] of instructions(dockerfile)) {
    const words = rest.split(/\s+/);
    if (word === 'FROM') {
      stage = { name: words[2] ?? 'final', directory: '/', env: '', user: '' };
      const place = `${folder}/${stage.name}`;
      lines.push(
        `mkdir ${place}; mount -t tmpfs -o size=4g,mode=755 none ${place}; mkdir ${place}/upper ${place}/work ${root()}`,
        `mount -t overlay overlay -o lowerdir=/,upperdir=${place}/upper,workdir=${place}/work ${root()}`,
        `for one in proc dev; do mount --bind /$one ${root()}/$one; done`,
      );
    } else if (word === 'WORKDIR') {
      stage.directory = rest;
      lines.push(`mkdir -p ${root()}${rest}`);
    } else if (word === 'COPY') {
      const from = /^--from=(\w+)$/.exec(words[0])?.[1];
      const paths = from === undefined ? words : words.slice(1);
      const to = paths.at(-1) ?? '';
      const inRoot = to.startsWith('/') ? `${root()}${to}` : `${root()}${stage.directory}/${to}`;
      const sources = paths
        .slice(0, -1)
        .map((path) => (from === undefined ? `${folder}/context/${path}` : `${root(from)}${path}`));
      if (to.endsWith('/')) lines.push(`mkdir -p ${inRoot}`);
      lines.push(`copy ${sources.join(' ')} ${inRoot}`);
    } else if (word === 'RUN') lines.push(within(rest));
    else if (word === 'ENV') stage.env += ` ${rest}`;
    else if (word === 'USER') stage.user = rest;
    else settings.set(word, rest);
  }
  const command = (['ENTRYPOINT', 'CMD'] as const).flatMap(
    (word) => JSON.parse(settings.get(word) ?? '[]') as string[],
  );
  const [, health = '[]'] = /CMD (\[.*\])/.exec(settings.get('HEALTHCHECK') ?? '') ?? [];
  const configuration = {
    portals: [{ listen: '127.0.0.1:0' }],
    targets: [
      {
        name: 'iqn.2026-01.org.example:docker',
        partition: `${settings.get('VOLUME') ?? ''}/partition`,
        access: [{ initiator: '*' }],
      },
    ],
  };
  return [
    ...lines,
    within('cldd --version'),
    `[ "$(${within('id -un')})" = cldd ]`,
    within(`cldd init ${settings.get('VOLUME') ?? ''}/partition --size 32M --quiet`),
    `mkdir -p ${root()}/etc/cldd; echo ${quote(JSON.stringify(configuration))} > ${root()}/etc/cldd/cldd.yaml`,
    `${within(`exec ${command.join(' ')}`)} & daemon=$!`,
    `n=0; until ${within((JSON.parse(health) as string[]).join(' '))} > ${folder}/health; do n=$((n+1)); [ $n -lt 60 ]; sleep 0.5; done`,
    `cat ${folder}/health; kill -s ${settings.get('STOPSIGNAL') ?? ''} $daemon; wait $daemon; echo ended in order`,
  ].join('\n');
}

const hasOverlay = readFileSync('/proc/filesystems', 'utf8').includes('overlay');
const possible =
  process.getuid?.() === 0 && hasOverlay ? {} : { skip: 'only root may mount, and overlay must be known' };

void tap.test(
  'the image of the Dockerfile builds and serves',
  { ...needing('unshare', 'chroot', 'npm', 'bash'), ...possible },
  async (t) => {
    const text = readFileSync(join(ROOT, 'packaging/docker/Dockerfile'), 'utf8');
    const known = ['FROM', 'WORKDIR', 'COPY', 'RUN', 'ENV', 'USER', 'EXPOSE', 'VOLUME', 'STOPSIGNAL', 'HEALTHCHECK', 'ENTRYPOINT', 'CMD']; // prettier-ignore
    for (const [word] of instructions(text)) t.ok(known.includes(word), word);
    for (const [word, image] of instructions(text))
      if (word === 'FROM') t.match(image, /^node:20-/, 'the Node that is tried here');
    const file = join(folder, 'build.sh');
    writeFileSync(file, script(text));
    const built = await run('unshare', ['--mount', '--propagation', 'private', 'bash', file], {
      timeoutMs: 580_000,
    });
    t.equal(built.code, 0, `${built.stdout.slice(-2000)}\n${built.stderr.slice(-4000)}`);
    t.match(built.stdout, packageVersion());
    t.match(built.stdout, /^cldd ready: iqn\.2026-01\.org\.example:docker on 127\.0\.0\.1:\d+/m);
    t.match(built.stdout, /"controlSocket": "\/run\/cldd\/cldd\.sock"/, 'what the health check sees');
    t.match(built.stdout, /ended in order\n$/);
  },
);
