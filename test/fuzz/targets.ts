/**
 * What reads bytes of strangers, each with sound inputs, its words, and a judge: undefined if the input was taken or
 * refused as it should be, else what is wrong. PDUs, CDBs and partitions have fuzzers of their own beside their tests.
 */
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatRequest, parseResponse, REQUEST_BYTES_MAX } from '../../src/admin/protocol.js';
import { parseRequest } from '../../src/admin/requests.js';
import {
  gather,
  hasEnd,
  openBackup,
  readableBackups,
  verifyBackup,
} from '../../src/cli/backup/backup-file.js';
import { FrameWriter, type FrameType } from '../../src/cli/backup/format.js';
import { prove } from '../../src/cli/backup/prove.js';
import { parseConfiguration } from '../../src/config/load.js';
import { ConfigurationError } from '../../src/config/mistakes.js';
import { Chap } from '../../src/iscsi/chap.js';
import { KEYS } from '../../src/iscsi/keys.js';
import { normaliseName } from '../../src/iscsi/names.js';
import { Negotiation, NegotiationError } from '../../src/iscsi/negotiation.js';
import { DEFAULT_LIMITS } from '../../src/iscsi/options.js';
import { parseText, TextError } from '../../src/iscsi/text.js';
import { OperationalError } from '../../src/operational-error.js';
import { packageRoot } from '../package-root.js';
import type { Language } from './mutate.js';

export interface Target extends Language {
  judge: (input: Buffer) => string | undefined;
  /** Removes what the judge made. */
  end?: () => void;
}

const root = packageRoot();
/** Far above what any of these inputs takes; a hang is a find. */
const JUDGE_MS_MAX = 10_000;

function wrong(
  error: unknown,
  ...refusals: (abstract new (...args: never[]) => Error)[]
): string | undefined {
  if (refusals.some((kind) => error instanceof kind)) return undefined;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function guard(
  look: () => unknown,
  ...refusals: (abstract new (...args: never[]) => Error)[]
): string | undefined {
  const from = performance.now();
  let found: string | undefined;
  try {
    look();
  } catch (error) {
    found = wrong(error, ...refusals);
  }
  const tookMs = performance.now() - from;
  return found ?? (tookMs > JUDGE_MS_MAX ? `took ${Math.round(tookMs)} ms` : undefined);
}

const pairs = (text: Record<string, string>): Buffer =>
  Buffer.from(Object.entries(text).map(([key, value]) => `${key}=${value}\0`).join('')); // prettier-ignore

/** Text of login and text requests: parsed, negotiated in every stage, taken for names and CHAP. No answer outgrows its question by much. */
function text(): Target {
  const user = { name: 'host', secret: Buffer.from('a secret of the host') };
  return {
    seeds: [
      pairs({ InitiatorName: 'iqn.2026-01.org.example:a', SessionType: 'Normal', TargetName: 'iqn.2026-01.org.example:b', AuthMethod: 'CHAP,None' }),
      pairs({ HeaderDigest: 'CRC32C,None', DataDigest: 'None', MaxRecvDataSegmentLength: '262144', ErrorRecoveryLevel: '2', FirstBurstLength: '0x10000', MaxBurstLength: '16776192' }),
      pairs({ CHAP_A: '5,7,6,8' }),
      pairs({ CHAP_A: '5', CHAP_N: 'host', CHAP_R: `0x${'ab'.repeat(16)}`, CHAP_I: '7', CHAP_C: `0b${'QUJD'.repeat(8)}` }),
      pairs({ SendTargets: 'All', 'X-com.example.key': 'value', 'X#com.example': '1' }),
    ], // prettier-ignore
    tokens: [...KEYS.map(({ name }) => name), '=', '\0', ',', 'Yes', 'No', 'None', 'CRC32C', 'CHAP', 'NotUnderstood', 'Irrelevant', 'Reject', '0b', '0x', 'iqn.', 'eui.', '%n', '\u{10ffff}'], // prettier-ignore
    judge: (input) =>
      guard(
        () => {
          const given = parseText(input);
          for (const stage of ['security', 'operational', 'full-feature'] as const) {
            const negotiation = new Negotiation(DEFAULT_LIMITS);
            let answered = 0;
            try {
              for (const [key, value] of given) answered += (negotiation.offer(key, value, stage) ?? '').length;
            } catch (error) {
              if (!(error instanceof NegotiationError)) throw error;
            }
            if (answered > 2 * input.length + 64 * given.length) throw new Error('the answer outgrows the question');
          }
          for (const [, value] of given) normaliseName(value);
          const chap = new Chap({ users: [user], mutual: user, algorithms: ['SHA3_256', 'SHA256', 'SHA1', 'MD5'] });
          const keys = new Map(given);
          chap.step(new Map([['CHAP_A', keys.get('CHAP_A') ?? '5']]));
          if (chap.step(keys).outcome === 'done') throw new Error('a response that nobody could know was accepted');
        },
        TextError,
        NegotiationError,
      ),
  }; // prettier-ignore
}

function config(): Target {
  const folder = join(root, 'config');
  const files = readdirSync(folder).filter((name) => name.endsWith('.yaml'));
  return {
    seeds: files.map((name) => readFileSync(join(folder, name))),
    tokens: ['targets:', '  - ', 'name: ', 'access: ', 'portals: ', 'listen: ', '[', ']', '{', '}', '? ', '&a ', '*a', '\n', '"', "'", ': ', '|', '>', '!!x ', '!!binary ', '<<: ', '\t', '\u2028', '\ufeff', '---\n', '...\n', '#', '%YAML 9.9\n', '__proto__: '], // prettier-ignore
    judge: (input) =>
      guard(() => {
        try {
          parseConfiguration(input.toString('utf8'), join(folder, 'fuzz.yaml'));
        } catch (error) {
          if (!(error instanceof ConfigurationError)) throw error;
          if (error.mistakes.length === 0) throw new TypeError('refused without a mistake', { cause: error });
        }
      }),
  };
}

function control(): Target {
  return {
    seeds: [
      formatRequest({ command: 'status', arguments: {} }),
      formatRequest({ command: 'slave-enable', arguments: { target: 'iqn.2026-01.org.example:a', crashConsistent: true } }),
      formatRequest({ command: 'slave-read', arguments: { generation: 1, position: 512, length: 1024 } }),
      formatRequest({ command: 'changes', arguments: { since: 3, from: 0 } }),
      formatRequest({ command: 'log-level', arguments: { level: 'debug' } }),
      '{"cldd":1,"result":{"targets":[]}}\n',
      '{"cldd":1,"error":{"code":"A","message":"b","refused":true}}\n',
    ].map((line) => Buffer.from(line)), // prettier-ignore
    tokens: ['{', '}', '[', ']', '"', ':', ',', 'null', 'true', '\\u0000', '\\ud800', '"__proto__":', '"constructor":{"prototype":{}}', '"cldd":', '"command":', '"arguments":', '1e999'], // prettier-ignore
    judge: (input) =>
      guard(() => {
        const line = input.subarray(0, REQUEST_BYTES_MAX).toString('utf8');
        for (const parse of [parseRequest, parseResponse])
          try {
            parse(line);
          } catch (error) {
            if (!(error instanceof OperationalError)) throw error;
          }
        if (({} as Record<string, unknown>)['polluted'] !== undefined)
          throw new Error('a prototype was changed');
      }),
  };
}

const HEADER = {
  version: 1,
  id: '6b1f',
  kind: 'full',
  base: null,
  target: 'iqn.2026-01.org.example:a',
  uuid: '0f5c5b1e-7f53-4f3e-8c55-9a7f0f1b2c3d',
  generation: 1,
  createdAt: '2026-11-25T00:00:00.000Z',
  capacityBytes: 8192,
};

/**
 * Backups as somebody may have made them to do harm: the input is a script of frames, one a line (type, position,
 * length, payload), that are framed with right numbers and checksums; what follows a line '!' is put in as it is.
 */
function backup(): Target {
  const folder = mkdtempSync(join(tmpdir(), 'cldd-fuzz-backup-'));
  const path = join(folder, 'a.cldd');
  const script = (...lines: string[]): Buffer => Buffer.from(lines.join('\n'));
  const head = `HEAD 0 0 ${JSON.stringify(HEADER)}`;
  const later = {
    ...HEADER,
    id: '7c2a',
    kind: 'incremental',
    base: { id: '6b1f', generation: 1 },
    generation: 2,
  };
  return {
    seeds: [
      script(head, 'ZERO 0 4096 ', `DATA 4096 512 ${'x'.repeat(512)}`, 'ZERO 4608 3584 ', '.'),
      script(`HEAD 0 0 ${JSON.stringify(later)}`, `DATA 512 512 ${'y'.repeat(512)}`, '.'),
      script(head, 'GZIP 0 512 \u001f\u008b\u0008', '.'),
      script(head, 'ZERO 0 8192 ', 'DONE 0 0 {"sha256":"00"}', '!', 'HEAD'),
    ],
    tokens: ['HEAD ', 'DATA ', 'GZIP ', 'ZERO ', 'DONE ', 'EVIL ', '\n', '.', '!', 'null', '{}', '[]', '"', '18446744073709551615', '9007199254740993', '512', '"capacityBytes":1e300', '"__proto__":', '"../../x"', '\\u001b[31m'], // prettier-ignore
    judge: (input) => {
      writeFileSync(path, framed(input));
      return guard(() => {
        for (const look of [
          () => verifyBackup(openBackup(path)),
          () => hasEnd(openBackup(path)),
          () => gather([folder], []),
          () => prove([folder]),
          () => readableBackups(folder),
        ])
          try {
            look();
          } catch (error) {
            if (!(error instanceof OperationalError)) throw error;
          }
      });
    },
    end: () => rmSync(folder, { recursive: true, force: true }),
  };
}

function framed(script: Buffer): Buffer {
  const writer = new FrameWriter();
  const frames: Buffer[] = [];
  const lines = script.toString('latin1').split('\n');
  for (const [number, line] of lines.entries()) {
    if (line === '.') frames.push(writer.done());
    else if (line === '!') {
      frames.push(Buffer.from(lines.slice(number + 1).join('\n'), 'latin1'));
      break;
    } else {
      const [, type = 'DATA', position = '0', length = '0', payload = ''] =
        /^(\w{4}) (\d{1,20}) (\d{1,20}) (.*)$/.exec(line) ?? [];
      const frame = writer.frame(
        type as FrameType,
        clamp(position),
        clamp(length),
        Buffer.from(payload, 'latin1'),
      );
      frames.push(frame);
    }
  }
  return Buffer.concat(frames);
}

const clamp = (digits: string): number => Math.min(Number(digits), 2 ** 64 - 2 ** 12);

export const TARGETS: Readonly<Record<string, () => Target>> = { text, config, control, backup };
