/** The rows of the comparison: what is measured, and what is wanted of it. */
import type { Load } from './load.js';

export interface Workload {
  readonly id: string;
  readonly title: string;
  readonly load: Omit<Load, 'region' | 'seconds' | 'ops' | 'seed'>;
  /** Columns of targets that can't do it. */
  readonly without?: readonly string[];
  /** The page cache is emptied before every run. */
  readonly cold?: boolean;
  /** Wanted ratios of our rate to tgtd's. */
  readonly goal: { disabled?: number; enabled?: number; tuned?: number };
}

const KIB = 1024;
const small = { bytes: 4 * KIB, order: 'random' } as const;
const large = { bytes: 256 * KIB, order: 'sequential' } as const;

const NO_DIGESTS = ['prototype'];

export const WORKLOADS: readonly Workload[] = [
  {
    id: 'read-1',
    title: '4 KiB random read, depth 1',
    load: { ...small, operation: 'read', depth: 1 },
    goal: { disabled: 2.3, enabled: 2.3 },
  },
  {
    id: 'read-32',
    title: '4 KiB random read, depth 32',
    load: { ...small, operation: 'read', depth: 32 },
    goal: { disabled: 3.3, enabled: 3.1 },
  },
  {
    id: 'write-1',
    title: '4 KiB random write, depth 1',
    load: { ...small, operation: 'write', depth: 1 },
    goal: { disabled: 2.1, enabled: 2.0 },
  },
  {
    id: 'write-32',
    title: '4 KiB random write, depth 32',
    load: { ...small, operation: 'write', depth: 32 },
    goal: { disabled: 2.8, enabled: 2.4 },
  },
  {
    id: 'large-read',
    title: '256 KiB sequential read, depth 32',
    load: { ...large, operation: 'read', depth: 32 },
    goal: { disabled: 1.1, enabled: 1.1 },
  },
  {
    id: 'large-write',
    title: '256 KiB sequential write, depth 32',
    load: { ...large, operation: 'write', depth: 32 },
    goal: { disabled: 6, enabled: 5, tuned: 2 },
  },
  {
    id: 'read-8x32',
    title: '4 KiB random read, 8 connections × depth 32',
    load: { ...small, operation: 'read', depth: 32, connections: 8 },
    goal: { disabled: 3.4, enabled: 3.2 },
  },
  {
    id: 'write-4x32',
    title: '4 KiB random write, 4 connections × depth 32',
    load: { ...small, operation: 'write', depth: 32, connections: 4 },
    goal: { disabled: 2.5, enabled: 2.2 },
  },
  {
    id: 'fua-1',
    title: '4 KiB random write with FUA, depth 1',
    load: { ...small, operation: 'write', depth: 1, fua: true },
    goal: { disabled: 1.05, enabled: 0.95 },
  },
  {
    id: 'fua-32',
    title: '4 KiB random write with FUA, depth 32',
    load: { ...small, operation: 'write', depth: 32, fua: true },
    goal: { disabled: 1.3, enabled: 1.2 },
  },
  {
    id: 'cold-32',
    title: '4 KiB random read, depth 32, cold cache',
    load: { ...small, operation: 'read', depth: 32 },
    cold: true,
    goal: { disabled: 1.2, enabled: 1.2 },
  },
  {
    id: 'digest-read',
    title: '256 KiB sequential read, depth 32, header digest',
    load: { ...large, operation: 'read', depth: 32, headerDigest: true },
    without: NO_DIGESTS,
    goal: {},
  },
  {
    id: 'digests-read',
    title: '256 KiB sequential read, depth 32, header and data digests',
    load: { ...large, operation: 'read', depth: 32, headerDigest: true, dataDigest: true },
    without: NO_DIGESTS,
    goal: { disabled: 1.5 },
  },
  {
    id: 'digests-write',
    title: '256 KiB sequential write, depth 32, header and data digests',
    load: { ...large, operation: 'write', depth: 32, headerDigest: true, dataDigest: true },
    without: NO_DIGESTS,
    goal: { disabled: 1.5 },
  },
];
