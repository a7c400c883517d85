/** The client as a library: everything that the command line is made of. */
export { type Change, diffTrees, type FoundEntry, listPath } from './browse.ts'
export { CheckpointDatabase } from './engine/checkpoint-database.ts'
export { type BackupSummary, Engine } from './engine/engine.ts'
export type * from './engine/file-target.ts'
export type * from './engine/source.ts'
export type * from './engine/target.ts'
export type { TransportCounters, TransportOptions } from './http.ts'
export type { Login } from './login.ts'
export {
  type ByteRange,
  type CallOptions,
  type ReadOptions,
  ReceiverClient,
  type SendOptions,
} from './receiver-client.ts'
export { ObjectReader } from './restore/object-reader.ts'
export { type RestoreOptions, type RestoreSummary, restore } from './restore/restore.ts'
export type { RestoreCounts, RestoreProblem } from './restore/restore-log.ts'
export { restoreStream } from './restore/stream-restore.ts'
export { selectCheckpoint, selectSource } from './select-checkpoint.ts'
export { ChunkSource } from './sources/chunk-source.ts'
export { LocalDirSource } from './sources/local-dir-source.ts'
export { ChunkTarget } from './targets/chunk-target.ts'
export { DirTarget } from './targets/dir-target.ts'
export { WebDavBackups } from './targets/webdav-backups.ts'
export { WebDavClient } from './targets/webdav-client.ts'
export { WebDavTarget } from './targets/webdav-target.ts'
export { isWebDavUrl, parseWebDavUrl, type WebDavLocation } from './targets/webdav-url.ts'
export { TreeClient, type TreeNames } from './tree-client.ts'
export { parseTreeUrl, type TreeLocation } from './tree-url.ts'
export { parseVaultUrl, type VaultLocation } from './vault-url.ts'
