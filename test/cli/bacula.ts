/** A whole Bacula in a folder, from Debian's packages, which are unpacked and not installed. */
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '../../conformance/support/ports.js';
import { run, Running, succeed } from '../../conformance/support/processes.js';
import { until } from './support.js';

const PACKAGES = [
  ...['bacula-director', 'bacula-director-sqlite3', 'bacula-sd', 'bacula-fd', 'bacula-console'],
  ...['bacula-common', 'bacula-common-sqlite3', 'sqlite3', 'libwrap0', 'liblzo2-2'],
];
const LIBRARIES = ['usr/lib/bacula', 'usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu'];
const TABLES = 'usr/share/dbconfig-common/data/bacula-director-sqlite3/install/sqlite3';

type Tap = { teardown: (end: () => unknown) => void };

export class Bacula {
  readonly #folder: string;
  readonly #env: NodeJS.ProcessEnv;

  private constructor(folder: string, env: NodeJS.ProcessEnv) {
    this.#folder = folder;
    this.#env = env;
  }

  /** Unpacks and starts it in `folder`, until the test ends. `resources`: of the director. */
  static async start(t: Tap, folder: string, resources: string): Promise<Bacula> {
    mkdirSync(join(folder, 'volumes'), { recursive: true });
    await succeed('apt-get', ['download', '-q', ...PACKAGES], { cwd: folder, timeoutMs: 240_000 });
    for (const name of readdirSync(folder).filter((one) => one.endsWith('.deb'))) {
      await succeed('dpkg', ['-x', join(folder, name), folder]);
      rmSync(join(folder, name));
    }
    // As its package's alternatives do: the catalogue is SQLite's.
    for (const name of readdirSync(join(folder, 'usr/lib/bacula')).filter((one) =>
      /^libbaccats-\d.*\.so$/.test(one),
    )) {
      rmSync(join(folder, 'usr/lib/bacula', name));
      symlinkSync(name.replace('libbaccats-', 'libbaccats-sqlite3-'), join(folder, 'usr/lib/bacula', name));
    }
    const env = { ...process.env, LD_LIBRARY_PATH: LIBRARIES.map((one) => join(folder, one)).join(':') };
    const made = new Bacula(folder, env);
    await succeed(
      'sh',
      [
        '-c',
        `"$1" "$2" < "$3"`,
        'sh',
        join(folder, 'usr/bin/sqlite3'),
        join(folder, 'bacula.db'),
        join(folder, TABLES),
      ],
      { env },
    );
    const [dir, sd, fd] = [await freePort(), await freePort(), await freePort()];
    made.#configure({ dir, sd, fd }, resources);
    for (const daemon of ['sd', 'fd', 'dir']) {
      const program = join(folder, `usr/sbin/bacula-${daemon}`);
      const running = new Running(program, ['-f', '-c', join(folder, `${daemon}.conf`)], { env });
      t.teardown(() => running.end());
    }
    await until('the director', async () => (await made.#console('quit')).code === 0);
    return made;
  }

  /** Gives a command to the console, and waits for the jobs that it starts. What the jobs say. */
  async tell(command: string): Promise<string> {
    const done = await this.#console(command, 'wait', 'messages', 'quit');
    return done.stdout;
  }

  #console(...commands: string[]): ReturnType<typeof run> {
    const line = `printf '%s\\n' "$@" | '${this.#folder}/usr/sbin/bconsole' -c '${this.#folder}/bconsole.conf'`;
    return run('sh', ['-c', line, 'sh', ...commands], { env: this.#env, timeoutMs: 120_000 });
  }

  #configure(port: { dir: number; sd: number; fd: number }, resources: string): void {
    const folder = this.#folder;
    const places = `WorkingDirectory = "${folder}"; PidDirectory = "${folder}"`;
    // Nobody but this test's own daemons, on loopback, is told it.
    const password = 'Password = "of-this-test"';
    const write = (name: string, text: string, more = ''): void =>
      writeFileSync(join(folder, name), text.replaceAll('; ', '\n') + more, { mode: 0o600 });
    const messages = 'Messages { Name = Standard; director = dir = all\n}\n';
    write(
      'dir.conf',
      `Director { Name = dir; DirAddress = 127.0.0.1; DirPort = ${port.dir}; QueryFile = "${folder}/etc/bacula/scripts/query.sql"; ${places}; Messages = Standard; ${password}\n}
Catalog { Name = Catalog; dbname = bacula; dbuser = ""; dbpassword = ""\n}
Client { Name = backup-server-fd; Address = 127.0.0.1; FDPort = ${port.fd}; Catalog = Catalog; ${password}\n}
Storage { Name = File; Address = 127.0.0.1; SDPort = ${port.sd}; Device = Volumes; Media Type = File; ${password}\n}
Pool { Name = Default; Pool Type = Backup; Label Format = "Volume-"\n}
Messages { Name = Standard; console = all; append = "${folder}/log" = all\n}
Job { Name = Restore; Type = Restore; Client = backup-server-fd; FileSet = slave; Storage = File; Pool = Default; Messages = Standard\n}
`,
      resources,
    );
    write(
      'sd.conf',
      `Storage { Name = sd; SDAddress = 127.0.0.1; SDPort = ${port.sd}; ${places}\n}
Director { Name = dir; ${password}\n}
Device { Name = Volumes; Media Type = File; Archive Device = "${folder}/volumes"; LabelMedia = yes; Random Access = yes; AutomaticMount = yes; RemovableMedia = no; AlwaysOpen = no\n}
${messages}`,
    );
    write(
      'fd.conf',
      `FileDaemon { Name = backup-server-fd; FDAddress = 127.0.0.1; FDPort = ${port.fd}; ${places}\n}
Director { Name = dir; ${password}\n}
${messages}`,
    );
    write(
      'bconsole.conf',
      `Director { Name = dir; Address = 127.0.0.1; DirPort = ${port.dir}; ${password}\n}\n`,
    );
  }
}
