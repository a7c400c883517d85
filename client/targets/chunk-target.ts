/** A receiver's vault, checkpoints as ordered lists of chunks: the receiver need not know what they hold. */
import { limits } from '../../protocol/limits.ts'
import type { Part } from '../../protocol/schema.ts'
import type { TargetCapabilities } from '../engine/target.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { ReceiverTarget } from './receiver-target.ts'
import { receiverCapabilities } from './target-capabilities.ts'
import type { UploaderOptions } from './uploader.ts'

export class ChunkTarget extends ReceiverTarget {
  readonly capabilities: TargetCapabilities = receiverCapabilities('chunks')

  /** Backs up to `source` in the client's vault. Opens nothing yet. */
  constructor(client: ReceiverClient, source: string, options: UploaderOptions = {}) {
    super(client, source, options)
  }

  override async addItems(first: number, items: readonly Part[]): Promise<void> {
    for (let offset = 0; offset < items.length; offset += limits.maxPageItems) {
      const page = items.slice(offset, offset + limits.maxPageItems)
      await this.client.addItems(this.checkpoint, first + offset, page)
    }
  }
}
