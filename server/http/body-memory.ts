/**
 * Memory that long bodies are laid down in, used again and again. Memory of its own for each costs page faults, and makes
 * the collector run for every few of them: a third of the time that a chunk of 1 MiB takes (measured).
 */

const KiB = 1024
/** What is shorter is had more cheaply. */
const minBytes = 64 * KiB
/**
 * Powers of two, and room for what stands beside the content: the table of a batch, the head of a block. What is not
 * written to costs nothing. What is longer is as long as it must be.
 */
const minPieceBytes = 256 * KiB
const maxPieceBytes = 4096 * KiB
const extraBytes = 256 * KiB
/** So much is kept for the next bodies: three batches of 4 MiB. Of the four that a client has under way few end at once. */
const maxIdleBytes = 3 * (maxPieceBytes + extraBytes)
/** Nobody who is idle keeps it for longer. */
const idleMs = 10_000

/** Memory on loan. */
export interface Lent {
  /** Where it is. Whoever moves it to a thread and gets it back writes here where it is then. */
  bytes: Buffer
}

export class BodyMemory {
  /** The one used last comes last. */
  #idle: ArrayBuffer[] = []
  #idleBytes = 0
  #timer: NodeJS.Timeout | undefined

  /** Lends so many bytes for as long as `use` takes. What stands in them is of no meaning, and they are nobody's afterwards. */
  async lend<T>(bytes: number, use: (lent: Lent) => Promise<T>): Promise<T> {
    if (bytes < minBytes) return await use({ bytes: Buffer.allocUnsafe(bytes) })
    const lent: Lent = { bytes: Buffer.from(this.#take(bytes), 0, bytes) }
    try {
      return await use(lent)
    } finally {
      this.#giveBack(lent.bytes.buffer as ArrayBuffer)
    }
  }

  #take(bytes: number): ArrayBuffer {
    const wanted = pieceBytes(bytes)
    // The longer ones stay for long bodies: what is written to once takes memory.
    let place = -1
    for (const [i, { byteLength }] of this.#idle.entries()) {
      if (byteLength >= wanted && byteLength <= (this.#idle[place]?.byteLength ?? Infinity)) place = i
    }
    const [memory] = place === -1 ? [] : this.#idle.splice(place, 1)
    if (memory === undefined) return Buffer.allocUnsafeSlow(wanted).buffer
    this.#idleBytes -= memory.byteLength
    return memory
  }

  /** Of what was moved away and did not come back, nothing is here. */
  #giveBack(memory: ArrayBuffer): void {
    if (memory.byteLength === 0) return
    if (this.#idleBytes + memory.byteLength > maxIdleBytes) {
      memory.transfer(0)
      return
    }
    this.#idle.push(memory)
    this.#idleBytes += memory.byteLength
    this.#timer ??= setTimeout(() => this.#clear(), idleMs).unref()
    this.#timer.refresh()
  }

  #clear(): void {
    for (const memory of this.#idle) memory.transfer(0)
    this.#idle = []
    this.#idleBytes = 0
    this.#timer = undefined
  }
}

function pieceBytes(bytes: number): number {
  if (bytes > maxPieceBytes + extraBytes) return bytes
  return Math.max(minPieceBytes, 2 ** Math.ceil(Math.log2(Math.max(1, bytes - extraBytes)))) + extraBytes
}
