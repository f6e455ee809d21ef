import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { lunsFor } from '../../src/config/access.js';
import { addressMatches, nameMatches, parseHostPort } from '../../src/config/addresses.js';
import { loadConfiguration, parseConfiguration } from '../../src/config/load.js';
import { ConfigurationError } from '../../src/config/mistakes.js';
import { defaultControlSocket } from '../../src/config/runtime-folder.js';
import { SCHEMA_FILE } from '../../src/config/schema.js';
import { OperationalError } from '../../src/operational-error.js';
import { DEFAULT_LIMITS } from '../../src/iscsi/options.js';
import { PACKAGE_ROOT } from '../../src/package-root.js';

/** The lines that `cldd config check` prints for a text. */
function mistakesOf(text: string, file = 'f.yaml'): string[] {
  try {
    parseConfiguration(text, file);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigurationError)) throw error;
    return error.message.split('\n');
  }
}

const TARGET = 'targets:\n  - name: iqn.2026-01.com.example:a\n    partition: /p\n';

function writeSecret(folder: string, name: string, text: string, mode = 0o600): void {
  mkdirSync(join(folder, 'secrets'), { recursive: true });
  const path = join(folder, 'secrets', name);
  writeFileSync(path, text, { mode });
  chmodSync(path, mode);
}

void t.test('the example and the minimal file in config/ are correct', (t) => {
  const folder = t.testdir();
  for (const name of ['fileserver', 'backup', 'cldd', 'discovery'])
    writeSecret(folder, name, `a secret of ${name} here\n`);
  const example = readFileSync(join(PACKAGE_ROOT, 'config/cldd.example.yaml'), 'utf8');
  const { portals, targets, limits } = parseConfiguration(example, join(folder, 'cldd.yaml'));
  t.match(portals[1], { host: '2001:db8::10', port: 3260, portalGroupTag: 1 });
  t.equal(portals[2].advertise, 'storage.example.com:3260');
  t.equal(targets[0].authentication.users[1].secret.toString(), 'a secret of backup here');
  t.same(targets[0].access[2].luns[1], { lun: 9, unit: 'slave', readOnly: true });
  t.equal(limits.connectionsMax, 256);
  t.equal(limits.commandWindow, DEFAULT_LIMITS.commandWindow);

  const minimal = loadConfiguration(join(PACKAGE_ROOT, 'config/cldd.minimal.yaml'));
  t.match(minimal.portals, [{ host: '0.0.0.0', port: 3260, portalGroupTag: 1 }]);
  t.same(minimal.targets[0].access[0].luns, [
    { lun: 0, unit: 'master', readOnly: false },
    { lun: 1, unit: 'slave', readOnly: true },
  ]);
  t.end();
});

void t.test('the published schema describes every key, forbids unknown ones, and knows every limit', (t) => {
  interface Node {
    description?: string;
    properties?: Record<string, Node>;
    definitions?: Record<string, Node>;
    items?: Node;
    type?: string;
    additionalProperties?: unknown;
    propertyNames?: unknown;
    $ref?: string;
  }
  const schema = JSON.parse(readFileSync(SCHEMA_FILE, 'utf8')) as Node;
  const visit = (node: Node, path: string): void => {
    if (node.$ref === undefined) t.ok(node.description, `${path} has a description`);
    // A map from names that the user chooses says what these may be.
    if (node.type === 'object')
      t.ok(node.additionalProperties === false || node.propertyNames, `${path} is closed`);
    for (const [key, child] of Object.entries({ ...node.properties, ...node.definitions }))
      visit(child, `${path}/${key}`);
    if (node.items) visit(node.items, `${path}[]`);
  };
  visit(schema, '');
  t.same(
    Object.keys(schema.definitions?.['limits'].properties ?? {}).sort(),
    Object.keys(DEFAULT_LIMITS).sort(),
  );
  const manual = readFileSync(join(PACKAGE_ROOT, 'docs/configuration.md'), 'utf8');
  const keys = (node: Node): string[] => [
    ...Object.keys(node.properties ?? {}),
    ...Object.values({ ...node.properties, ...node.definitions }).flatMap(keys),
    ...(node.items ? keys(node.items) : []),
  ];
  for (const key of new Set(keys(schema)))
    t.ok(manual.includes(`\`${key}\``), `docs/configuration.md has ${key}`);
  t.end();
});

void t.test(
  'what initiators are told of a target: physicalBlockBytes, accessStates, writeSameToEnd, reportChanges',
  (t) => {
    const portals =
      'portals:\n  - listen: 127.0.0.1:3260\n  - { listen: "127.0.0.1:3261", portalGroupTag: 2 }\n';
    const [plain] = parseConfiguration(portals + TARGET, 'f.yaml').targets;
    t.same(
      [plain.physicalBlockBytes, plain.accessStates, plain.reportChanges],
      [undefined, undefined, undefined],
    );
    const keys =
      '    physicalBlockBytes: 512\n    accessStates: { 1: optimized, 2: standby }\n    writeSameToEnd: true\n    reportChanges: true\n';
    const [target] = parseConfiguration(portals + TARGET + keys, 'f.yaml').targets;
    t.equal(target.physicalBlockBytes, 512);
    t.same(
      [...(target.accessStates ?? [])],
      [
        [1, 'optimized'],
        [2, 'standby'],
      ],
    );
    t.same([target.writeSameToEnd, target.reportChanges], [true, true]);

    t.same(mistakesOf(`${portals}${TARGET}    physicalBlockBytes: 1024\n    reportChanges: yes please\n`), [
      'f.yaml:7:25 /targets/0/physicalBlockBytes must be one of 512, 4096',
      'f.yaml:8:20 /targets/0/reportChanges must be boolean',
    ]);
    t.same(mistakesOf(`${portals}${TARGET}    accessStates: { 1: asleep }\n`), [
      'f.yaml:7:24 /targets/0/accessStates/1 must be one of optimized, non-optimized, standby, unavailable',
    ]);
    t.match(
      mistakesOf(`${portals}${TARGET}    accessStates: { first: standby }\n`)[0],
      '/targets/0/accessStates',
    );
    t.same(mistakesOf(`${portals}${TARGET}    accessStates: { 3: standby }\n`), [
      'f.yaml:7:19 /targets/0/accessStates no portal has group tag 3',
    ]);
    t.end();
  },
);

void t.test('every mistake of shape is reported at once, each at its place', (t) => {
  const text = [
    'portals:',
    '  - listen: 127.0.0.1:3260',
    '    portalGroupTag: many',
    'targets:',
    '  - name: iqn.2026-01.com.example:a',
    '    partitoin: /dev/sdb1',
    'limits: { spinUs: -1 }',
    'log/level: info',
  ].join('\n');
  t.same(mistakesOf(text), [
    'f.yaml:3:21 /portals/0/portalGroupTag must be integer',
    'f.yaml:5:5 /targets/0 key "partition" is missing',
    'f.yaml:6:5 /targets/0 unknown key "partitoin"',
    'f.yaml:7:19 /limits/spinUs must be >= 0',
    'f.yaml:8:1 / unknown key "log/level"',
  ]);
  t.end();
});

void t.test('every mistake of sense is reported at once, each at its place', (t) => {
  const folder = t.testdir();
  writeSecret(folder, 'open', 'a secret for all to see', 0o644);
  writeSecret(folder, 'short', 'short');
  writeSecret(folder, 'good', 'twelve bytes and more');
  const text = `portals:
  - listen: localhost:3260
  - listen: 127.0.0.1:3260
  - listen: 127.0.0.1
targets:
  - name: iqn.2026-01.com.example:A
    partition: disc
    access:
      - initiator: not a name
        address: 10.0.0.0/33
        portalGroupTag: 7
        user: nobody
      - show: [slave]
        luns: [{ lun: 1, unit: slave }, { lun: 1, unit: master }]
    authentication:
      users:
        - { name: a, secretFile: secrets/open }
        - { name: a, secretFile: secrets/short }
        - { name: b, secretFile: secrets/none }
        - { name: c, secretFile: secrets/good }
      mutual: { name: d, secretFile: secrets/good }
  - name: iqn.2026-01.com.example:a
    partition: ./disc
  - name: iqn.2026-13.com.example:month
    partition: other
limits: { maxBurstBytes: 4096, firstBurstBytes: 8192 }
`;
  const file = join(folder, 'cldd.yaml');
  const found = mistakesOf(text, file).map((line) => line.slice(file.length + 1).replaceAll(folder, ''));
  t.match(found, [
    /^2:13 \/portals\/0\/listen "localhost:3260" is not IPv4:PORT/,
    /^4:13 \/portals\/2\/listen portal 127.0.0.1:3260 is already used at \/portals\/1\/listen/,
    /^9:20 \/targets\/0\/access\/0\/initiator "not a name" is neither an iSCSI name \(RFC 7143 §4.2.7\)/,
    /^10:18 \/targets\/0\/access\/0\/address "10.0.0.0\/33" is not an IP address/,
    /^11:25 \/targets\/0\/access\/0\/portalGroupTag no portal has group tag 7/,
    /^12:15 \/targets\/0\/access\/0\/user "nobody" is not among the users/,
    /^14:15 \/targets\/0\/access\/1\/luns give either show or luns/,
    /^14:48 \/targets\/0\/access\/1\/luns\/1\/lun LUN 1 is already used/,
    /^17:34 .*secretFile \/secrets\/open has mode 0644: others could read the secret/,
    /^18:19 \/targets\/0\/authentication\/users\/1\/name user a is already used/,
    /^18:34 .*the secret in \/secrets\/short must have 12 to 255 bytes/,
    /^19:34 .*can't read the secret file \/secrets\/none \(ENOENT\)/,
    /^21:38 .*the same secret in both directions is forbidden \(RFC 7143 §9.2.1\)/,
    /^22:11 \/targets\/1\/name target iqn.2026-01.com.example:a is already used at \/targets\/0\/name/,
    /^23:16 \/targets\/1\/partition partition \/disc is already used/,
    /^24:11 \/targets\/2\/name "iqn.2026-13.com.example:month" is not an iSCSI name/,
    /^26:9 \/limits firstBurstBytes \(8192\) must not exceed maxBurstBytes \(4096\)/,
  ]);
  t.equal(found.length, 17);
  t.notMatch(found.join('\n'), /a secret for all/, 'no secret is quoted');
  t.end();
});

void t.test('YAML that is broken, empty, multiple or aliased is one mistake with its place', (t) => {
  t.match(mistakesOf('targets: ['), [/^f.yaml:1:\d+ \/ unexpected end of the stream/]);
  t.match(mistakesOf(''), [/^f.yaml:1:1 \/ the file is empty/]);
  t.match(mistakesOf('# nothing\n'), [/^f.yaml:1:1 \/ the file is empty/]);
  t.match(mistakesOf(`${TARGET}---\n${TARGET}`), [/more than one YAML document/]);
  t.match(mistakesOf('a: &x 1\nb: *x\n'), [/^f.yaml:2:5 \/ aliases \(\*name\) are not allowed/]);
  t.match(mistakesOf(`${TARGET}targets: []\n`), [/^f.yaml:4:1 \/ duplicated mapping key/]);
  t.match(mistakesOf('? [a]\n: b\n'), [/complex keys/]);
  t.match(mistakesOf(`? &x targets\n: []\n`), [/^f.yaml:\d+:\d+ \/targets must have at least one entry/]);
  t.end();
});

void t.test('whatever the text is, the answer is a configuration or mistakes', (t) => {
  const garbage = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.json(),
    fc
      .array(
        fc.constantFrom(
          'targets:',
          '  - ',
          'name: ',
          '[',
          '{',
          '? ',
          '&a ',
          '*a',
          '\n',
          '"',
          ': ',
          '|',
          '!!x ',
        ),
      )
      .map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(garbage, (text) => {
      try {
        parseConfiguration(text, 'f.yaml');
      } catch (error) {
        if (!(error instanceof ConfigurationError) || error.mistakes.length === 0) throw error;
      }
    }),
    { numRuns: 500 },
  );
  t.pass('500 texts');
  t.end();
});

void t.test('a file that is missing or not a text is one clear message', (t) => {
  const folder = t.testdir();
  t.throws(() => loadConfiguration(join(folder, 'none.yaml')), {
    code: 'CONFIG_UNREADABLE',
    message: /no such file/,
  });
  t.throws(() => loadConfiguration(folder), OperationalError);
  t.throws(() => loadConfiguration(join(folder, 'f.yaml', 'below')), { message: /no such file/ });
  writeFileSync(join(folder, 'f.yaml'), TARGET);
  t.throws(() => loadConfiguration(join(folder, 'f.yaml', 'below')), {
    message: /it can't be read \(ENOTDIR\)/,
  });
  t.end();
});

void t.test('the first access rule that fits decides; without one the target does not exist', (t) => {
  const { targets } = parseConfiguration(
    `${TARGET}    access:
      - { initiator: 'iqn.2026-01.com.example:file-?', address: 10.1.0.0/16, show: [master] }
      - { initiator: IQN.2026-01.com.example:backup, show: [slave] }
      - { address: '2001:db8::/32', readOnly: true }
`,
    'f.yaml',
  );
  const [{ access }] = targets;
  const ask = (initiatorName: string, address: string): string | undefined =>
    lunsFor(access, { initiatorName, address, portalGroupTag: 1, user: undefined })
      ?.map(({ lun, unit, readOnly }) => `${lun} ${unit}${readOnly ? ' ro' : ''}`)
      .join(', ');
  t.equal(ask('iqn.2026-01.com.example:file-1', '10.1.2.3'), '0 master');
  t.equal(ask('iqn.2026-01.com.example:file-1', '::ffff:10.1.2.3'), '0 master', 'IPv4 within IPv6 is IPv4');
  t.equal(ask('iqn.2026-01.com.example:file-1', '10.2.2.3'), undefined);
  t.equal(ask('iqn.2026-01.com.example:file-10', '10.1.2.3'), undefined);
  t.equal(
    ask('iqn.2026-01.com.example:backup', '192.0.2.1'),
    '1 slave ro',
    'names are compared in lower case',
  );
  t.equal(ask('iqn.2026-01.com.example:x', '2001:db8::1%eth0'), '0 master ro, 1 slave ro');
  t.equal(ask('iqn.2026-01.com.example:x', '2001:db9::1'), undefined);
  t.equal(ask('iqn.2026-01.com.example:x', 'nonsense'), undefined);
  const [open] = parseConfiguration(TARGET, 'f.yaml').targets;
  t.equal(
    lunsFor(open.access, { initiatorName: 'iqn.a', address: '::1', portalGroupTag: 1, user: undefined }),
    undefined,
  );
  t.end();
});

void t.test('a rule with a user fits only after CHAP as that user', (t) => {
  const folder = t.testdir();
  writeSecret(folder, 'u', 'a secret of twelve bytes');
  const text = `${TARGET}    authentication: { users: [{ name: u, secretFile: secrets/u }] }\n    access: [{ user: u }]\n`;
  const [{ access, authentication }] = parseConfiguration(text, join(folder, 'f.yaml')).targets;
  const asker = { initiatorName: 'iqn.2026-01.x.y', address: '::1', portalGroupTag: 1 };
  t.equal(lunsFor(access, { ...asker, user: undefined }), undefined);
  t.equal(lunsFor(access, { ...asker, user: 'v' }), undefined);
  t.equal(lunsFor(access, { ...asker, user: 'u' })?.length, 2);
  t.same(authentication.algorithms, ['SHA3_256', 'SHA256', 'SHA1', 'MD5']);
  t.end();
});

void t.test('patterns match as a regular expression of the same meaning would, in bounded time', (t) => {
  const piece = fc.constantFrom('a', 'b', '*', '?');
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 8 }),
      fc.array(fc.constantFrom('a', 'b'), { maxLength: 8 }),
      (signs, letters) => {
        const expression = new RegExp(
          `^${signs.map((sign) => (sign === '*' ? '.*' : sign.replace('?', '.'))).join('')}$`,
        );
        return nameMatches(signs.join(''), letters.join('')) === expression.test(letters.join(''));
      },
    ),
  );
  const began = performance.now();
  t.notOk(nameMatches('*a'.repeat(100) + 'b', 'a'.repeat(223)));
  t.ok(performance.now() - began < 1000);
  t.end();
});

void t.test('addresses as people write them', (t) => {
  t.same(parseHostPort('127.0.0.1:3261'), { host: '127.0.0.1', port: 3261 });
  t.same(parseHostPort('[::1]:0'), { host: '::1', port: 0 });
  t.same(parseHostPort('::1'), { host: '::1', port: 3260 });
  t.same(parseHostPort('storage.example.com'), { host: 'storage.example.com', port: 3260 });
  for (const wrong of ['', ':1', '1.2.3.4:', '1.2.3.4:65536', '[1.2.3.4]:1', '::1:x', 'a b:1'])
    t.equal(parseHostPort(wrong), undefined, wrong);
  t.ok(addressMatches('10.0.0.5', '10.0.0.5'));
  t.notOk(addressMatches('10.0.0.5', '10.0.0.6'));
  t.end();
});

void t.test(
  'mistakes of shape and of sense are told together, and none that only follows from another',
  (t) => {
    const text =
      'portals:\n  - listen: 127.0.0.1:99999\ntargets:\n  - name: frob\n    colour: red\n    allowLoad: 3\n';
    try {
      parseConfiguration(text, '/etc/cldd.yaml');
      t.fail('accepted');
    } catch (error) {
      t.ok(error instanceof ConfigurationError);
      const lines = (error as ConfigurationError).message.split('\n');
      t.match(lines, [
        /^\/etc\/cldd\.yaml:2:13 \/portals\/0\/listen /,
        /^\/etc\/cldd\.yaml:4:5 \/targets\/0 key "partition" is missing$/,
        /^\/etc\/cldd\.yaml:4:11 \/targets\/0\/name /,
        /^\/etc\/cldd\.yaml:5:5 \/targets\/0 unknown key "colour"$/,
        /^\/etc\/cldd\.yaml:6:\d+ \/targets\/0\/allowLoad must be boolean$/,
      ]);
      t.equal(lines.length, 5);
    }
    t.end();
  },
);

void t.test('a secret may be a systemd credential, and every way in which it is not there is told', (t) => {
  const folder = t.testdir();
  const text = `${TARGET}    authentication: { users: [{ name: u, secretCredential: chap }] }\n`;
  const { CREDENTIALS_DIRECTORY: before } = process.env;
  t.teardown(() => {
    if (before === undefined) delete process.env['CREDENTIALS_DIRECTORY'];
    else process.env['CREDENTIALS_DIRECTORY'] = before;
  });
  delete process.env['CREDENTIALS_DIRECTORY'];
  const parse = (yaml = text): string => {
    try {
      const { users } = parseConfiguration(yaml, join(folder, 'f.yaml')).targets[0].authentication;
      return users[0].secret.toString();
    } catch (error) {
      return (error as Error).message;
    }
  };
  t.match(parse(), /secretCredential systemd gives this process no credentials: add LoadCredential=chap:/);
  process.env['CREDENTIALS_DIRECTORY'] = folder;
  t.match(parse(), /can't read the secret file .*chap \(ENOENT\)/);
  // systemd lets the service's user in by an access list, which shows as the group's right to read.
  writeFileSync(join(folder, 'chap'), 'a secret by systemd\n', { mode: 0o440 });
  t.equal(parse(), 'a secret by systemd');
  chmodSync(join(folder, 'chap'), 0o444);
  t.match(parse(), /has mode 0444: others could read the secret/);
  t.match(
    parse(text.replace('chap }', 'chap, secretFile: x }')),
    /give either secretFile or secretCredential/,
  );
  t.match(parse(text.replace(', secretCredential: chap', '')), /give either secretFile or secretCredential/);
  t.match(parse(text.replace(': chap', ': ../chap')), /secretCredential must match pattern/);
  t.end();
});

void t.test('a redirection names HOST:PORT, and a portal group that exists', (t) => {
  const folder = t.testdir();
  const parse = (redirect: string): unknown => {
    try {
      return parseConfiguration(`${TARGET}    redirect: ${redirect}\n`, join(folder, 'f.yaml')).targets[0]
        .redirect;
    } catch (error) {
      return (error as Error).message;
    }
  };
  t.same(parse('{ to: storage.example.com }'), { address: 'storage.example.com:3260', permanent: false });
  t.same(parse("{ to: '[2001:db8::1]:4000', permanent: true, portalGroupTag: 1 }"), {
    address: '[2001:db8::1]:4000',
    permanent: true,
    portalGroupTag: 1,
  });
  t.match(parse('{ to: "a:b:c" }'), /"a:b:c" is not HOST:PORT/);
  t.match(parse('{ to: a, portalGroupTag: 9 }'), /no portal has group tag 9/);
  t.match(parse('{ permanent: true }'), /key "to" is missing/);
  t.end();
});

void t.test('limits, addresses and texts that cannot be are told at their place', (t) => {
  t.match(mistakesOf(`${TARGET}limits: { firstBurstBytes: 65536, maxBurstBytes: 8192 }\n`), [
    /^f.yaml:4:9 \/limits firstBurstBytes \(65536\) must not exceed maxBurstBytes \(8192\)$/,
  ]);
  t.match(mistakesOf(`${TARGET}metrics: { listen: 'storage:9000' }\n`), [
    /\/metrics\/listen "storage:9000" is not IPv4:PORT or \[IPv6\]:PORT/,
  ]);
  t.match(mistakesOf(`${TARGET}portals: [{ listen: '127.0.0.1', advertise: 'a:b:c' }]\n`), [
    /\/portals\/0\/advertise "a:b:c" is not HOST:PORT/,
  ]);
  t.match(mistakesOf('targets: []\n'), [/\/targets must have at least one entry/]);
  t.match(mistakesOf(`${TARGET}controlSocket: ''\n`), [/\/controlSocket must not be empty/]);
  t.match(mistakesOf(`${TARGET}controlSocket: /${'x'.repeat(200)}\n`), [
    /control socket may have \d+ bytes at most/,
  ]);
  t.end();
});

void t.test(
  'the HTTP port has a default, a rule says who ejects and loads, a target has limits of its own',
  (t) => {
    const { metrics, targets } = parseConfiguration(
      `${TARGET}    maxConnections: 4\n    access: [{ initiator: '*', allowEject: false, allowLoad: true }]\nmetrics: {}\n`,
      'f.yaml',
    );
    t.ok(metrics !== undefined && metrics.port > 0 && metrics.host === '127.0.0.1', 'this host only');
    t.same(targets[0].sessionLimits, { maxConnections: 4 });
    t.match(targets[0].access[0].luns, [
      { unit: 'master' },
      { unit: 'slave', mayEject: false, mayLoad: true },
    ]);
    t.end();
  },
);

void t.test('the same secret in both directions is refused where it is written, be it a credential', (t) => {
  const folder = t.testdir();
  writeSecret(folder, 'u', 'the same in both ways');
  writeFileSync(join(folder, 'chap'), 'the same in both ways', { mode: 0o400 });
  const { CREDENTIALS_DIRECTORY: before } = process.env;
  t.teardown(() => {
    if (before === undefined) delete process.env['CREDENTIALS_DIRECTORY'];
    else process.env['CREDENTIALS_DIRECTORY'] = before;
  });
  process.env['CREDENTIALS_DIRECTORY'] = folder;
  const told = (mutual: string): string[] =>
    mistakesOf(
      `${TARGET}    authentication: { users: [{ name: u, secretFile: secrets/u }], mutual: { name: m, ${mutual} } }\n`,
      join(folder, 'f.yaml'),
    );
  t.match(told('secretCredential: chap'), [/\/mutual\/secretCredential the same secret in both directions/]);
  t.match(told('secretFile: secrets/u'), [/\/mutual\/secretFile the same secret in both directions/]);
  t.match(told('secretFile: secrets'), [/\/mutual\/secretFile .*secrets is not a file/]);
  t.end();
});

void t.test('the control socket lies where the service, root or the user has a folder for it', (t) => {
  t.equal(defaultControlSocket({ RUNTIME_DIRECTORY: '/run/cldd:/run/other' }), '/run/cldd/cldd.sock');
  const { getuid } = process;
  t.teardown(() => Object.assign(process, { getuid }));
  process.getuid = () => 0;
  t.equal(defaultControlSocket({}), '/run/cldd/cldd.sock');
  process.getuid = () => 1000;
  t.equal(defaultControlSocket({ XDG_RUNTIME_DIR: '/run/user/1000' }), '/run/user/1000/cldd.sock');
  t.equal(defaultControlSocket({}), join(tmpdir(), 'cldd-1000/cldd.sock'));
  t.end();
});

void t.test('a key that is no text, and places of what is not there, are told all the same', (t) => {
  t.match(mistakesOf('? [a, b]\n: 1\n')[0], /^f\.yaml:1:\d+ /);
  t.match(mistakesOf('portals: []\n').join('\n'), /f\.yaml:1:1 \/ key "targets" is missing/);
  t.match(mistakesOf('- 1\n')[0], /^f\.yaml:1:1 .*must be object/);
  t.end();
});

void t.test('a rule may name one address, of either family', (t) => {
  t.ok(addressMatches('2001:db8::1', '2001:db8::1'));
  t.notOk(addressMatches('2001:db8::1', '2001:db8::2'));
  t.ok(addressMatches('192.0.2.1', '::ffff:192.0.2.1'));
  t.end();
});
