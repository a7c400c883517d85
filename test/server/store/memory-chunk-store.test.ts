import { describe, it } from 'vitest'
import { MemoryChunkStore } from '../../../server/store/memory-chunk-store.ts'
import { chunkStoreSuite } from '../../conformance/chunk-store-suite.ts'
import { collectableSuite } from '../../conformance/collectable-suite.ts'

const create = async () => ({ open: () => MemoryChunkStore.open(), dispose: async () => {} })

chunkStoreSuite({ describe, it }, { create })
collectableSuite({ describe, it }, { create })
