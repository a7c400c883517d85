/**
 * The way of chunks to the receiver: ask what it lacks, pack that into blocks, compress, send a batch.
 *
 * Chunks of concurrent `put` calls gather in a waiting line; a shipment takes from its front. A shipment
 * leaves when one is full and a lane is free, or when no lane is busy, so that the line is never waited
 * for in vain and requests grow with the load. Shipments overlap: one asks while another compresses and
 * a third is on the wire.
 *
 * Each id is under way once: whoever puts it meanwhile waits for the same shipment.
 *
 * The receiver refuses a block whole when one chunk in it is false: its chunks then go once more, each
 * alone, so that only who put the false one hears of it.
 */
import { availableParallelism } from 'node:os'
import { blockBytes as bytesOfBlock, type PlainChunk } from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { mayBeObject } from '../../protocol/may-be-object.ts'
import { Problem } from '../../protocol/problem.ts'
import type { CheckpointName } from '../../protocol/url.ts'
import { defaultCompressionLevel } from '../../protocol/zstd.ts'
import type { PutCount } from '../engine/target.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { EncodingThreads } from './encoding-threads.ts'

export interface UploaderOptions {
  /** Shipments under way at once. */
  readonly lanes?: number
  /** zstd level; 0 sends everything plain. */
  readonly compressionLevel?: number
}

/**
 * A shipment has this many plain bytes, or this many chunks, at most: what a source's buffer holds, with the lists that are made
 * of it. It is full from `fullBytes` on, since buffers are not filled to the brim.
 */
const shipmentBytes = 4 * 1024 * 1024 + 128 * 1024
const shipmentChunks = 2048
const fullBytes = 3 * 1024 * 1024
/** What a shipment comes to when nothing in it compresses. */
const encodedBytes = bytesOfBlock(shipmentChunks, shipmentBytes) + 64 * 1024
/** Small chunks share a block up to here: larger gains little, and costs who reads one chunk of it. */
const blockBytes = 1024 * 1024

/** One call of `put`: how many of its chunks are under way, and what became of the others. */
interface Call {
  open: number
  sent: number
  failure: { readonly error: unknown } | undefined
  readonly end: () => void
}

/** A chunk in the line or under way. */
interface Waiting extends PlainChunk {
  readonly call: Call
  /** Who puts the same chunk meanwhile. */
  twins: Call[] | undefined
}

export class Uploader {
  readonly #client: ReceiverClient
  readonly #checkpoint: CheckpointName
  readonly #lanes: number
  readonly #encoders: EncodingThreads
  #line: Waiting[] = []
  #lineBytes = 0
  #busy = 0
  #scheduled = false
  /** Bytes of the blocks that the receiver kept. */
  bytesStored = 0
  readonly #underWay = new Map<Id, Waiting>()

  constructor(client: ReceiverClient, checkpoint: CheckpointName, options: UploaderOptions = {}) {
    this.#client = client
    this.#checkpoint = checkpoint
    this.#lanes = options.lanes ?? 4
    this.#encoders = new EncodingThreads({
      // The other half of the processors reads, hashes, and is the receiver's where it runs on the same machine.
      count: Math.max(1, Math.min(this.#lanes, availableParallelism() >> 1)),
      level: options.compressionLevel ?? defaultCompressionLevel,
      outBytes: encodedBytes,
    })
  }

  /** Settles when nothing of these is under way any more: the bytes are borrowed until then. */
  async put(chunks: readonly PlainChunk[]): Promise<PutCount> {
    if (chunks.length === 0) return { sentChunks: 0, reusedChunks: 0 }
    const { promise, resolve } = Promise.withResolvers<void>()
    const call: Call = { open: chunks.length, sent: 0, failure: undefined, end: resolve }
    this.#encoders.prepare()
    for (const chunk of chunks) this.#enqueue(chunk, call)
    this.#schedule()
    await promise
    if (call.failure !== undefined) throw call.failure.error
    return { sentChunks: call.sent, reusedChunks: chunks.length - call.sent }
  }

  #enqueue({ id, bytes }: PlainChunk, call: Call): void {
    const twin = this.#underWay.get(id)
    if (twin !== undefined) {
      twin.twins ??= []
      twin.twins.push(call)
      return
    }
    const waiting: Waiting = { id, bytes, call, twins: undefined }
    this.#underWay.set(id, waiting)
    this.#line.push(waiting)
    this.#lineBytes += bytes.length
  }

  /** The receiver has it; `sent` says whether it came from us. */
  #settle(waiting: Waiting, sent: boolean): void {
    if (!this.#leave(waiting)) return
    if (sent) waiting.call.sent++
    this.#end(waiting)
  }

  #fail(waiting: Waiting, error: unknown): void {
    if (!this.#leave(waiting)) return
    waiting.call.failure ??= { error }
    for (const twin of waiting.twins ?? []) twin.failure ??= { error }
    this.#end(waiting)
  }

  /** Whether it was under way until now: a shipment that fails has settled some of its chunks. */
  #leave(waiting: Waiting): boolean {
    const { id } = waiting
    return this.#underWay.get(id) === waiting && this.#underWay.delete(id)
  }

  #end({ call, twins }: Waiting): void {
    if (--call.open === 0) call.end()
    if (twins === undefined) return
    for (const twin of twins) if (--twin.open === 0) twin.end()
  }

  /** One turn of the event loop later, so that everything that is at hand now goes along. */
  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#dispatch()
    })
  }

  #dispatch(): void {
    while (this.#line.length > 0 && this.#busy < this.#lanes) {
      const full = this.#lineBytes >= fullBytes || this.#line.length >= shipmentChunks
      if (!full && this.#busy > 0) return
      this.#busy++
      void this.#ship(this.#take()).finally(() => {
        this.#busy--
        this.#schedule()
      })
    }
  }

  /**
   * The front of the line, ending where a call ends if it is full there: a buffer whose chunks go in one shipment is given back
   * with its answer, and another one can be read.
   */
  #take(): Waiting[] {
    let bytes = 0
    let count = 0
    let call: Call | undefined
    for (const {
      bytes: { length },
      call: next,
    } of this.#line) {
      if (next !== call && bytes >= fullBytes) break
      if (count > 0 && (bytes + length > shipmentBytes || count >= shipmentChunks)) break
      bytes += length
      count++
      call = next
    }
    this.#lineBytes -= bytes
    return this.#line.splice(0, count)
  }

  /** Carries one shipment to its end and settles everybody in it; never rejects. */
  async #ship(shipment: Waiting[]): Promise<void> {
    try {
      const ids = shipment.map(({ id }) => id)
      const lacking = new Set(await this.#client.missing(ids, { checkpoint: this.#checkpoint }))
      const wanted: Waiting[] = []
      for (const waiting of shipment) {
        if (lacking.has(waiting.id)) wanted.push(waiting)
        else this.#settle(waiting, false)
      }
      if (wanted.length > 0) await this.#send(packIntoBlocks(wanted))
    } catch (error) {
      for (const waiting of shipment) this.#fail(waiting, error)
    }
  }

  async #send(groups: readonly (readonly Waiting[])[]): Promise<void> {
    const { blocks, release } = await this.#encoders.encode(groups)
    const alone: Waiting[][] = []
    try {
      const answer = await this.#client.putBatch(blocks, { checkpoint: this.#checkpoint })
      let at = 0
      for (const [i, group] of groups.entries()) {
        let isKept = false
        for (const waiting of group) {
          const outcome = answer.outcomes[at++]
          if (outcome === 'stored') isKept = true
          if (outcome !== 'refused') this.#settle(waiting, outcome === 'stored')
          else if (group.length > 1) alone.push([waiting])
          else this.#fail(waiting, refusal(waiting.id, answer.problems))
        }
        if (isKept) this.bytesStored += blocks[i]?.bytes ?? 0
      }
    } finally {
      release()
    }
    if (alone.length > 0) await this.#send(alone)
  }

  /** Ends its threads; what is still under way rejects. Idempotent. */
  async close(): Promise<void> {
    await this.#encoders.close()
  }
}

/**
 * Large chunks alone; small ones together, in order; and objects beside them, so that who reads directories does not decode the
 * files between them.
 */
function packIntoBlocks(wanted: readonly Waiting[]): Waiting[][] {
  const large: Waiting[][] = []
  const small: Waiting[] = []
  const objects: Waiting[] = []
  for (const waiting of wanted) {
    const { bytes } = waiting
    if (bytes.length >= blockBytes / 2) large.push([waiting])
    else if (mayBeObject(bytes)) objects.push(waiting)
    else small.push(waiting)
  }
  return [...large, ...inBlocks(small), ...inBlocks(objects)]
}

/** Blocks of about equal size, near to that which they may have. */
function inBlocks(chunks: readonly Waiting[]): Waiting[][] {
  const bytesInAll = chunks.reduce((sum, { bytes }) => sum + bytes.length, 0)
  const fairBytes = bytesInAll / Math.max(1, Math.ceil(bytesInAll / blockBytes - 0.25))
  const blocks: Waiting[][] = []
  let open: Waiting[] = []
  let bytes = 0
  for (const waiting of chunks) {
    const { length } = waiting.bytes
    if (open.length > 0 && (bytes + length / 2 > fairBytes || open.length >= limits.maxBlockChunks)) {
      blocks.push(open)
      open = []
      bytes = 0
    }
    open.push(waiting)
    bytes += length
  }
  if (open.length > 0) blocks.push(open)
  return blocks
}

function refusal(id: Id, problems: readonly { id: Id; detail: string }[]): Problem {
  const why = problems.find((problem) => problem.id === id)?.detail ?? 'no reason given'
  return new Problem('digest-mismatch', `the receiver refused chunk ${id}: ${why}`, { extensions: { id } })
}
