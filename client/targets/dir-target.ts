/** A receiver's vault, checkpoints as trees: what the root directory reaches is the backup. */
import type { TargetCapabilities } from '../engine/target.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { ReceiverTarget } from './receiver-target.ts'
import { receiverCapabilities } from './target-capabilities.ts'
import type { UploaderOptions } from './uploader.ts'

export class DirTarget extends ReceiverTarget {
  readonly capabilities: TargetCapabilities = receiverCapabilities('dir')

  /** Backs up to `source` in the client's vault. Opens nothing yet. */
  constructor(client: ReceiverClient, source: string, options: UploaderOptions = {}) {
    super(client, source, options)
  }

  override async addItems(): Promise<void> {
    throw new TypeError('a dir checkpoint has no items')
  }
}
