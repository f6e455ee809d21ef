/** What `cldd backup` is told, and what it tells. */
export interface BackupOptions {
  /** As it was given. */
  target?: string;
  to: string;
  /** Make the folder one of backups first. */
  create?: boolean;
  incremental?: boolean;
  /** Backups in a chain, after which the next one is full. */
  fullEvery?: number;
  /** Control socket, by which a guard disables the slave of a stream that was cut off. */
  socket?: string;
  config?: string;
  compress?: boolean;
  rate?: number;
  pre?: string;
  post?: string;
  final?: string;
  freezeLimit: number;
  crashConsistent?: boolean;
  useEnabled?: boolean;
  thawOnly?: boolean;
  dryRun?: boolean;
  quiet?: boolean;
  json?: boolean;
}

export interface BackupReport {
  target: string;
  /** Null for stdout. */
  file: string | null;
  kind: 'full' | 'incremental';
  generation: number;
  baseGeneration: number | null;
  capacityBytes: number;
  /** Of the ranges that were looked at. */
  rangeBytes: number;
  /** Of the image, without zeros; null in a dry run. */
  dataBytes: number | null;
  /** Of the file; null for stdout. */
  fileBytes: number | null;
  resumed: boolean;
  warnings: string[];
}
