import { hashAlgorithms } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { mediaTypes } from '../../protocol/url.ts'
import type { TargetCapabilities } from '../engine/target.ts'

/** What every chunkdav receiver of this protocol version takes. */
export function receiverCapabilities(form: TargetCapabilities['form']): TargetCapabilities {
  return { form, hashAlgorithms, deltas: [mediaTypes.delta], maxChunkBytes: limits.maxChunkBytes }
}
