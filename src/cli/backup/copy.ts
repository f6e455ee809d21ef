/** Copies the slave into a backup stream, from the beginning or from where an interrupted copy ended. */
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Arguments, CommandName, SlaveExtent } from '../../admin/protocol.js';
import type { ChangedRange } from '../../daemon/partition-engine.js';
import { EXTENT_BYTES_MAX } from './format.js';
import type { BackupHeader, FrameWriter } from './format.js';
import { Pace } from './pace.js';
import type { Progress } from './progress.js';

const compress = promisify(gzip);
const ZEROS = Buffer.alloc(EXTENT_BYTES_MAX);
/** Compressed to more than this share it is stored as it is. */
const WORTH_IT = 0.95;

/** Asks the daemon. */
export type Ask = (command: CommandName, given: Arguments) => Promise<unknown>;

/** Where frames go. */
export type Sink = (bytes: Buffer) => Promise<void>;

export interface CopyOptions {
  header: BackupHeader;
  ask: Ask;
  writer: FrameWriter;
  sink: Sink;
  /** Byte of the image where the copy goes on; 0 at first. */
  from: number;
  gzip: boolean;
  /** Bytes a second read from the slave; undefined: as fast as it goes. */
  rate: number | undefined;
  progress: Progress;
}

export interface Changes {
  ranges: ChangedRange[];
  full: boolean;
}

/** What changed since generation `since`, as the daemon's map says. */
export async function changesSince(ask: Ask, target: string, since: number): Promise<Changes> {
  const ranges: ChangedRange[] = [];
  let from: number | null = 0;
  let full = false;
  while (from !== null) {
    const page = (await ask('changes', { target, since, from })) as Changes & { next: number | null };
    ranges.push(...page.ranges);
    full = page.full;
    from = page.next;
  }
  return { ranges, full };
}

/** Copies `ranges` of the slave. Returns the image bytes that were not zeros. */
export async function copySlave(ranges: readonly ChangedRange[], options: CopyOptions): Promise<number> {
  const { header, ask, writer, sink, progress, rate } = options;
  const pace = new Pace(rate);
  let dataBytes = 0;
  let zeros: ChangedRange | undefined;
  const flushZeros = async (): Promise<void> => {
    if (zeros !== undefined) await sink(writer.frame('ZERO', zeros.position, zeros.length));
    zeros = undefined;
  };
  for (const range of ranges) {
    const end = Math.min(range.position + range.length, header.capacityBytes);
    let at = Math.max(range.position, options.from);
    while (at < end) {
      const { target, generation } = header;
      const wanted = { target, generation, position: at, length: end - at };
      const extent = (await ask('slave-read', wanted)) as SlaveExtent;
      const data = extent.data === null ? undefined : Buffer.from(extent.data, 'base64');
      if (data === undefined || data.equals(ZEROS.subarray(0, data.length))) {
        if (zeros !== undefined && zeros.position + zeros.length === at) zeros.length += extent.length;
        else {
          await flushZeros();
          zeros = { position: at, length: extent.length };
        }
      } else {
        await flushZeros();
        await sink(await dataFrame(writer, at, data, options.gzip));
        dataBytes += data.length;
      }
      at += extent.length;
      progress.add(extent.length);
      await pace.keep(data?.length ?? 0);
    }
  }
  await flushZeros();
  await sink(writer.done());
  return dataBytes;
}

async function dataFrame(writer: FrameWriter, at: number, data: Buffer, pack: boolean): Promise<Buffer> {
  if (pack) {
    const packed = await compress(data, { level: 3 });
    if (packed.length < data.length * WORTH_IT) return writer.frame('GZIP', at, data.length, packed);
  }
  return writer.frame('DATA', at, data.length, data);
}
