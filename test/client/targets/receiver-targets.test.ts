import { afterAll, beforeAll, describe, it } from 'vitest'
import { ReceiverClient } from '../../../client/receiver-client.ts'
import { ChunkTarget } from '../../../client/targets/chunk-target.ts'
import { DirTarget } from '../../../client/targets/dir-target.ts'
import { parseVaultUrl } from '../../../client/vault-url.ts'
import { type TargetSubject, targetSuite } from '../../conformance/target-suite.ts'
import { startReceiver, type TestReceiver } from '../../support/receiver.ts'

let receiver: TestReceiver
let vaults = 0

// One receiver serves all tests; each has a vault of its own, that its target creates.
beforeAll(async () => {
  receiver = await startReceiver()
})
afterAll(() => receiver.stop())

function create(Form: typeof DirTarget | typeof ChunkTarget): TargetSubject {
  const url = parseVaultUrl(`${receiver.url}/vault-${++vaults}`)
  return { open: async () => new Form(new ReceiverClient(url), 'laptop'), dispose: async () => {} }
}

for (const Form of [DirTarget, ChunkTarget]) {
  describe(Form.name, () => targetSuite({ describe, it }, { create: async () => create(Form) }))
}
