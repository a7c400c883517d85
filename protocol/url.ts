/**
 * The one place that knows how the protocol's paths are built and what names may look like.
 * Paths begin with `/`; `/-/…` is the receiver's own, everything else begins with a vault.
 */
import type { Id } from './id.ts'
import { Problem } from './problem.ts'

/** Vault names are lower-case, so that they are safe as folder names on every file system. */
const vaultGrammar = /^[a-z0-9][a-z0-9._-]{0,62}$/
const sourceGrammar = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/

/** Names the checkpoint in whose name a request is made: `{source}/{number}`. */
export const checkpointHeader = 'Chunkdav-Checkpoint'
/** Names the object that a PATCH starts from. */
export const baseHeader = 'Chunkdav-Base'

export const mediaTypes = {
  chunk: 'application/octet-stream',
  file: 'application/vnd.chunkdav.file+json',
  directory: 'application/vnd.chunkdav.directory+json',
  delta: 'application/vnd.chunkdav.delta+zstd',
  jsonPatch: 'application/json-patch+json',
} as const

/** `name` as a vault name; Problem `invalid-name` otherwise. */
export function parseVaultName(name: string): string {
  if (vaultGrammar.test(name) && !name.includes('..')) return name
  throw new Problem(
    'invalid-name',
    `"${name.slice(0, 80)}" is no vault name; use 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit`,
  )
}

/** `name` as a source name; Problem `invalid-name` otherwise. */
export function parseSourceName(name: string): string {
  if (sourceGrammar.test(name) && !name.includes('..')) return name
  throw new Problem(
    'invalid-name',
    `"${name.slice(0, 80)}" is no source name; use 1 to 128 of A-Z a-z 0-9 . _ - and begin with a letter or digit`,
  )
}

/** A checkpoint's number from text: 1 to 2^31-1 without leading zeros; undefined otherwise. */
export function parseCheckpointNumber(text: string): number | undefined {
  if (!/^[1-9][0-9]{0,9}$/.test(text)) return undefined
  const number = Number(text)
  return number < 2 ** 31 ? number : undefined
}

/** A checkpoint named by `Chunkdav-Checkpoint`. */
export interface CheckpointName {
  readonly source: string
  readonly number: number
}

/** The header's value for a checkpoint. */
export function formatCheckpointName({ source, number }: CheckpointName): string {
  return `${source}/${number}`
}

/** What a `Chunkdav-Checkpoint` header names; Problem `invalid-request` when it is malformed. */
export function parseCheckpointName(text: string): CheckpointName {
  const [source = '', digits = '', ...rest] = text.split('/')
  const number = parseCheckpointNumber(digits)
  if (rest.length > 0 || number === undefined) {
    throw new Problem(
      'invalid-request',
      `${checkpointHeader} must be source/number, not "${text.slice(0, 80)}"`,
    )
  }
  return { source: parseSourceName(source), number }
}

/** One name of a path, percent-encoded: everything but RFC 3986's unreserved characters. */
export function encodeSegment(name: Buffer): string {
  const text = name.toString('latin1')
  if (/^[A-Za-z0-9._~-]*$/.test(text)) return text
  return text.replace(
    /[^A-Za-z0-9._~-]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  )
}

function below(start: string, names: readonly Buffer[]): string {
  return start + names.map(encodeSegment).join('/')
}

/** The paths of one vault's resources. Names below the tree, a snapshot or the trash are bytes. */
export const paths = {
  vault: (vault: string) => `/${vault}/`,
  chunk: (vault: string, id: Id) => `/${vault}/chunks/${id}`,
  chunks: (vault: string) => `/${vault}/chunks/`,
  missing: (vault: string) => `/${vault}/chunks/missing`,
  fetch: (vault: string) => `/${vault}/chunks/fetch`,
  file: (vault: string, id: Id) => `/${vault}/files/${id}`,
  directory: (vault: string, id: Id) => `/${vault}/dirs/${id}`,
  sources: (vault: string) => `/${vault}/checkpoints/`,
  source: (vault: string, source: string) => `/${vault}/checkpoints/${source}/`,
  checkpoint: (vault: string, { source, number }: CheckpointName) =>
    `/${vault}/checkpoints/${source}/${number}`,
  items: (vault: string, { source, number }: CheckpointName) =>
    `/${vault}/checkpoints/${source}/${number}/items`,
  commit: (vault: string, { source, number }: CheckpointName) =>
    `/${vault}/checkpoints/${source}/${number}/commit`,
  pin: (vault: string, { source, number }: CheckpointName) => `/${vault}/checkpoints/${source}/${number}/pin`,
  settings: (vault: string) => `/${vault}/settings`,
  prune: (vault: string) => `/${vault}/upkeep/prune`,
  collection: (vault: string) => `/${vault}/upkeep/collection`,
  scrub: (vault: string) => `/${vault}/upkeep/scrub`,
  /** Collections end in a slash in answers; in requests they may. */
  tree: (vault: string, names: readonly Buffer[] = []) => below(`/${vault}/tree/`, names),
  snapshotSources: (vault: string) => `/${vault}/snapshots/`,
  snapshots: (vault: string, source: string) => `/${vault}/snapshots/${source}/`,
  snapshot: (vault: string, source: string, number: number | 'latest', names: readonly Buffer[] = []) =>
    below(`/${vault}/snapshots/${source}/${number}/`, names),
  trash: (vault: string) => `/${vault}/trash/`,
  trashItem: (vault: string, item: number, names: readonly Buffer[] = []) =>
    below(`/${vault}/trash/${item}/`, names),
} as const
