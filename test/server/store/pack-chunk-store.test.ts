import { describe, it } from 'vitest'
import { chunkStoreSuite } from '../../conformance/chunk-store-suite.ts'
import { collectableSuite } from '../../conformance/collectable-suite.ts'
import { PackSubject } from './pack-subject.ts'

chunkStoreSuite({ describe, it }, { create: () => PackSubject.create() })
collectableSuite({ describe, it }, { create: () => PackSubject.create() })

describe('with a new pack for every few blocks, and a flush for every few more', () => {
  const create = () => PackSubject.create({ packBytes: 5000, flushBytes: 10_000, flushRows: 7, openPacks: 2 })
  chunkStoreSuite({ describe, it }, { create })
  collectableSuite({ describe, it }, { create })
})
