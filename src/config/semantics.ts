/** What a schema can't say: names, addresses, references between keys, files; and the plain result of it all. */
import { dirname, resolve } from 'node:path';
import { realpathSync } from 'node:fs';
import { isIP } from 'node:net';
import { DEFAULT_LIMITS } from '../iscsi/options.js';
import type {
  AuthenticationOptions,
  ChapAlgorithm,
  ChapUser,
  PortalOptions,
  SessionLimits,
} from '../iscsi/options.js';
import { SOCKET_PATH_BYTES_MAX } from '../admin/protocol.js';
import { normaliseName } from '../iscsi/names.js';
import type { LunAccess } from '../scsi/port.js';
import { ISCSI_PORT, formatHostPort, isNetwork, parseHostPort } from './addresses.js';
import type { AccessRule, Configuration, Redirect, TargetConfiguration } from './configuration.js';
import type {
  RawAuthentication,
  RawConfiguration,
  RawPortal,
  RawRedirect,
  RawRule,
  RawTarget,
  RawUser,
} from './raw.js';
import { defaultControlSocket } from './runtime-folder.js';
import { credentialFile, readSecret } from './secrets.js';

/** Best first; what a target without a choice of its own accepts. */
export const DEFAULT_ALGORITHMS: readonly ChapAlgorithm[] = ['SHA3_256', 'SHA256', 'SHA1', 'MD5'];
export const NO_AUTHENTICATION: AuthenticationOptions = { users: [], algorithms: DEFAULT_ALGORITHMS };
export const DEFAULT_SHUTDOWN_GRACE_MS = 3000;
export const DEFAULT_SLOW_IO_MS = 1000;
const METRICS_PORT = 9170;
const DEFAULT_METRICS = `127.0.0.1:${METRICS_PORT}`;

/** Limits that a target may have of its own. */
const SESSION_LIMITS = [
  'maxConnections',
  'errorRecoveryLevel',
  'time2WaitSeconds',
  'time2RetainSeconds',
] as const satisfies (keyof SessionLimits)[];

/** Called for each mistake with the JSON pointer of the value that is wrong. */
export type Complain = (path: string, message: string) => void;

/** Builds the configuration; if `complain` was called, the result is not to be used. */
export function build(raw: RawConfiguration, file: string, complain: Complain): Configuration {
  const checks = new Checks(dirname(resolve(file)), complain);
  const portals = checks.portals(raw.portals ?? [{ listen: `0.0.0.0:${ISCSI_PORT}` }]);
  const targets = raw.targets.map((target, index) => checks.target(target, `/targets/${index}`, portals));
  const limits = { ...DEFAULT_LIMITS, ...raw.limits };
  if (limits.firstBurstBytes > limits.maxBurstBytes)
    complain(
      '/limits',
      `firstBurstBytes (${limits.firstBurstBytes}) must not exceed maxBurstBytes (${limits.maxBurstBytes})`,
    );
  const discoveryAuthentication = checks.authentication(
    raw.discovery?.authentication,
    '/discovery/authentication',
  );
  checks.secretsOfBothDirections();
  const { controlSocket } = raw;
  const socket = controlSocket === undefined ? defaultControlSocket() : checks.path(controlSocket);
  if (Buffer.byteLength(socket) > SOCKET_PATH_BYTES_MAX)
    complain(
      '/controlSocket',
      `the path of a control socket may have ${SOCKET_PATH_BYTES_MAX} bytes at most`,
    );
  return {
    portals,
    targets,
    discoveryAuthentication,
    controlSocket: socket,
    logLevel: raw.logLevel ?? 'info',
    ...(raw.metrics === undefined ? {} : { metrics: checks.metrics(raw.metrics.listen ?? DEFAULT_METRICS) }),
    slowIoMs: raw.slowIoMs ?? DEFAULT_SLOW_IO_MS,
    shutdownGraceMs: raw.shutdownGraceMs ?? DEFAULT_SHUTDOWN_GRACE_MS,
    limits,
  };
}

class Checks {
  readonly #folder: string;
  readonly #complain: Complain;
  readonly #targetNames = new Map<string, string>();
  readonly #partitions = new Map<string, string>();
  /** Secrets of users, and those by which the targets and discovery prove themselves, with where they stand. */
  readonly #userSecrets: Buffer[] = [];
  readonly #ownSecrets: { secret: Buffer; path: string }[] = [];

  constructor(folder: string, complain: Complain) {
    this.#folder = folder;
    this.#complain = complain;
  }

  path(path: string): string {
    return resolve(this.#folder, path);
  }

  portals(raw: readonly RawPortal[]): PortalOptions[] {
    const seen = new Map<string, string>();
    return raw.map(({ listen, portalGroupTag = 1, advertise }, index) => {
      const path = `/portals/${index}`;
      const parsed = parseHostPort(listen);
      if (parsed === undefined || isIP(parsed.host) === 0)
        this.#complain(`${path}/listen`, `"${listen}" is not IPv4:PORT or [IPv6]:PORT`);
      const { host, port } = parsed ?? { host: '', port: 0 };
      if (port !== 0) this.#once(seen, formatHostPort(host, port), `${path}/listen`, 'portal');
      const portal: PortalOptions = { host, port, portalGroupTag };
      if (advertise !== undefined) {
        const name = parseHostPort(advertise);
        if (name === undefined) this.#complain(`${path}/advertise`, `"${advertise}" is not HOST:PORT`);
        else portal.advertise = formatHostPort(name.host, name.port);
      }
      return portal;
    });
  }

  metrics(listen: string): { host: string; port: number } {
    const parsed = parseHostPort(listen, METRICS_PORT);
    if (parsed !== undefined && isIP(parsed.host) !== 0) return parsed;
    this.#complain('/metrics/listen', `"${listen}" is not IPv4:PORT or [IPv6]:PORT`);
    return { host: '', port: 0 };
  }

  target(raw: RawTarget, path: string, portals: readonly PortalOptions[]): TargetConfiguration {
    const name = normaliseName(raw.name);
    if (name === undefined)
      this.#complain(
        `${path}/name`,
        `"${raw.name}" is not an iSCSI name such as iqn.2026-01.com.example:files (RFC 7143 §4.2.7)`,
      );
    else this.#once(this.#targetNames, name, `${path}/name`, 'target');
    const partition = this.path(raw.partition);
    this.#once(this.#partitions, realPath(partition), `${path}/partition`, 'partition');
    const rules = (raw.access ?? []).map((rule, index) =>
      this.#rule(rule, `${path}/access/${index}`, raw, portals),
    );
    const target: TargetConfiguration = {
      name: name ?? raw.name,
      partition,
      access: rules,
      authentication: this.authentication(raw.authentication, `${path}/authentication`),
      allowEject: raw.allowEject ?? true,
      allowLoad: raw.allowLoad ?? false,
    };
    if (raw.alias !== undefined) target.alias = raw.alias;
    if (raw.accessStates !== undefined) {
      const states = Object.entries(raw.accessStates);
      target.accessStates = new Map(states.map(([tag, state]) => [Number(tag), state]));
      for (const [tag] of states) {
        if (!portals.some((portal) => portal.portalGroupTag === Number(tag)))
          this.#complain(`${path}/accessStates`, `no portal has group tag ${tag}`);
      }
    }
    if (raw.redirect !== undefined)
      target.redirect = this.#redirect(raw.redirect, `${path}/redirect`, portals);
    if (raw.physicalBlockBytes !== undefined) target.physicalBlockBytes = raw.physicalBlockBytes;
    if (raw.writeSameToEnd !== undefined) target.writeSameToEnd = raw.writeSameToEnd;
    if (raw.reportChanges !== undefined) target.reportChanges = raw.reportChanges;
    const own = SESSION_LIMITS.filter((key) => raw[key] !== undefined);
    if (own.length > 0) target.sessionLimits = Object.fromEntries(own.map((key) => [key, raw[key]]));
    return target;
  }

  #redirect(raw: RawRedirect, path: string, portals: readonly PortalOptions[]): Redirect {
    const { to, permanent = false, portalGroupTag } = raw;
    const parsed = parseHostPort(to);
    if (parsed === undefined) this.#complain(`${path}/to`, `"${to}" is not HOST:PORT`);
    const { host, port } = parsed ?? { host: '', port: 0 };
    const redirect: Redirect = { address: formatHostPort(host, port), permanent };
    if (portalGroupTag !== undefined) {
      if (!portals.some((portal) => portal.portalGroupTag === portalGroupTag))
        this.#complain(`${path}/portalGroupTag`, `no portal has group tag ${portalGroupTag}`);
      redirect.portalGroupTag = portalGroupTag;
    }
    return redirect;
  }

  authentication(raw: RawAuthentication | undefined, path: string): AuthenticationOptions {
    if (raw === undefined) return NO_AUTHENTICATION;
    const names = new Map<string, string>();
    const users = raw.users.map((user, index) => {
      this.#once(names, user.name, `${path}/users/${index}/name`, 'user');
      return this.#user(user, `${path}/users/${index}`);
    });
    const options: AuthenticationOptions = { users, algorithms: raw.algorithms ?? DEFAULT_ALGORITHMS };
    if (raw.mutual !== undefined) {
      const mutual = this.#user(raw.mutual, `${path}/mutual`);
      const key = raw.mutual.secretFile === undefined ? 'secretCredential' : 'secretFile';
      this.#ownSecrets.push({ secret: mutual.secret, path: `${path}/mutual/${key}` });
      options.mutual = mutual;
    }
    this.#userSecrets.push(...users.map(({ secret }) => secret));
    return options;
  }

  /** A user of one target could pretend to be another target that has the same secret. */
  secretsOfBothDirections(): void {
    for (const { secret, path } of this.#ownSecrets)
      if (secret.length > 0 && this.#userSecrets.some((other) => other.equals(secret)))
        this.#complain(path, 'the same secret in both directions is forbidden (RFC 7143 §9.2.1)');
  }

  #user(raw: RawUser, path: string): ChapUser {
    const { name } = raw;
    const [key, read] = this.#secret(raw);
    if ('secret' in read) return { name, secret: read.secret };
    this.#complain(`${path}${key}`, read.mistake);
    return { name, secret: Buffer.alloc(0) };
  }

  #secret({ secretFile, secretCredential }: RawUser): [key: string, read: ReturnType<typeof readSecret>] {
    if ((secretFile === undefined) === (secretCredential === undefined))
      return ['', { mistake: 'give either secretFile or secretCredential' }];
    if (secretFile !== undefined) return ['/secretFile', readSecret(this.path(secretFile))];
    const file = credentialFile(secretCredential ?? '');
    return ['/secretCredential', typeof file === 'string' ? readSecret(file, 'systemd') : file];
  }

  #rule(raw: RawRule, path: string, target: RawTarget, portals: readonly PortalOptions[]): AccessRule {
    const rule: AccessRule = { luns: this.#luns(raw, path) };
    if (raw.initiator !== undefined) rule.initiator = this.#initiator(raw.initiator, `${path}/initiator`);
    if (raw.address !== undefined) {
      if (!isNetwork(raw.address))
        this.#complain(`${path}/address`, `"${raw.address}" is not an IP address or ADDRESS/BITS`);
      rule.address = raw.address;
    }
    if (raw.portalGroupTag !== undefined) {
      if (!portals.some((portal) => portal.portalGroupTag === raw.portalGroupTag))
        this.#complain(`${path}/portalGroupTag`, `no portal has group tag ${raw.portalGroupTag}`);
      rule.portalGroupTag = raw.portalGroupTag;
    }
    if (raw.user !== undefined) {
      if (target.authentication?.users.some(({ name }) => name === raw.user) !== true)
        this.#complain(`${path}/user`, `"${raw.user}" is not among the users of the target's authentication`);
      rule.user = raw.user;
    }
    return rule;
  }

  #initiator(text: string, path: string): string {
    if (/[*?]/.test(text)) return text.normalize('NFKC').toLowerCase();
    const name = normaliseName(text);
    if (name === undefined)
      this.#complain(path, `"${text}" is neither an iSCSI name (RFC 7143 §4.2.7) nor a pattern with * or ?`);
    return name ?? text;
  }

  #luns(raw: RawRule, path: string): LunAccess[] {
    const readOnly = raw.readOnly ?? false;
    const may: Pick<LunAccess, 'mayEject' | 'mayLoad'> = {};
    if (raw.allowEject !== undefined) may.mayEject = raw.allowEject;
    if (raw.allowLoad !== undefined) may.mayLoad = raw.allowLoad;
    if (raw.luns === undefined) {
      const show = raw.show ?? ['master', 'slave'];
      const both: LunAccess[] = [
        { lun: 0, unit: 'master', readOnly },
        { lun: 1, unit: 'slave', readOnly: true, ...may },
      ];
      return both.filter(({ unit }) => show.includes(unit));
    }
    if (raw.show !== undefined) this.#complain(`${path}/luns`, 'give either show or luns, not both');
    const seen = new Map<string, string>();
    return raw.luns.map(({ lun, unit, readOnly: own }, index) => {
      this.#once(seen, String(lun), `${path}/luns/${index}/lun`, 'LUN');
      if (unit === 'slave') return { lun, unit, readOnly: true, ...may };
      return { lun, unit, readOnly: own ?? readOnly };
    });
  }

  #once(seen: Map<string, string>, value: string, path: string, what: string): void {
    const first = seen.get(value);
    if (first === undefined) seen.set(value, path);
    else this.#complain(path, `${what} ${value} is already used at ${first}`);
  }
}

/** Two names of one device are one partition; a missing one is reported when it is opened. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
