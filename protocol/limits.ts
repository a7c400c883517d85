/** The numbers that both sides agree on. A receiver states its own in its capabilities. */
const KiB = 1024
const MiB = 1024 * KiB

export const limits = {
  /** Plain bytes of one chunk. Bounds what a single request, a cache slot or a delta base costs. */
  maxChunkBytes: 16 * MiB,
  /** Plain bytes of a block: one largest chunk fits. */
  maxBlockBytes: 16 * MiB,
  /** Chunks in one block: bounds the table to 148 KiB. */
  maxBlockChunks: 4096,
  /** Encoded bytes of one request body that holds blocks. */
  maxBatchBytes: 32 * MiB,
  /** Chunks in one batch that is sent: bounds the tables that are in memory at once, and the answer. */
  maxBatchChunks: 65_536,
  /** Ids in one CheckChunkList request: 0.75 MiB of JSON. */
  maxMissingIds: 10_000,
  /** Ids in one fetch request. */
  maxFetchIds: 4096,
  /** Items in one page of a chunk checkpoint. */
  maxPageItems: 5000,
  /** Any JSON body that is not a stored object. */
  maxJsonBytes: 2 * MiB,
  /** A file or directory object. Writers cut lists long before. */
  maxObjectBytes: 4 * MiB,
  /** Nesting of a list object's parts. Four levels of a thousand parts reach 10^12 entries. */
  maxPartDepth: 8,
  /** Missing ids listed in one answer. The client sends those and asks again. */
  maxListedMissing: 1000,
} as const

/** The shape of `limits`, for a receiver that was configured with smaller ones. */
export type Limits = { readonly [K in keyof typeof limits]: number }

/** The protocol's version, stated in capabilities. Raised only when an old client would go wrong. */
export const protocolVersion = 1
