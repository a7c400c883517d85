/** The receiver as a library, for tests and for programs that embed it. */
export { lockDataDir } from './data-lock.ts'
export { MemoryBudget } from './http/memory-budget.ts'
export { ProxyTrust } from './http/proxy-trust.ts'
export type { CertificateFiles } from './listen/certificate.ts'
export type { Listener } from './listen/listeners.ts'
export type { Place } from './listen/place.ts'
export { openReceiver, type Receiver, type ReceiverOptions } from './receiver.ts'
export type {
  ChunkStore,
  ChunkStoreCapabilities,
  ChunkStoreUsage,
  PutOutcome,
  VerifiedBlock,
} from './store/chunk-store.ts'
export type {
  Collectable,
  CollectableStore,
  Collection,
  Garbage,
  Lease,
} from './store/collectable.ts'
export type { ScheduledFreeze } from './upkeep/schedule-options.ts'
export type { OpenStore, Vault, Vaults } from './vaults.ts'
