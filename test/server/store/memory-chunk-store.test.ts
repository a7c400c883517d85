import { describe, it } from 'vitest'
import { MemoryChunkStore } from '../../../server/store/memory-chunk-store.ts'
import { chunkStoreSuite } from '../../conformance/chunk-store-suite.ts'

chunkStoreSuite(
  { describe, it },
  { create: async () => ({ open: () => MemoryChunkStore.open(), dispose: async () => {} }) },
)
