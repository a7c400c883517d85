/**
 * Objects that arrive, looked into while the rest is still on its way, so that a commit has little left to walk.
 *
 * A client sends a directory when it was told that everything in it is here, and its files' chunks came just before: they are
 * looked up in memory yet. So one look at what a directory names tells mostly that it is whole, level by level from below, and
 * that is remembered (closure.ts), to be forgotten when anything is lost. Lists of chunks come beside the chunks. They are
 * looked into when a directory names them.
 *
 * Nothing rests on it. A look goes no further than to what is known to be whole, and to lists that came lately; each object is
 * entered once at most, so that whatever is sent costs no more than its length. What is not found whole, or would be too
 * much, is left to the commit.
 *
 * Objects are at hand until they are known to be whole, or a walk has read them, or more came than there is room for. All of them
 * were stored since the last loss: with the next one they are void.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import type { Id } from '../../protocol/id.ts'
import { isProblem } from '../../protocol/problem.ts'
import type { DirectoryObject, FileObject } from '../../protocol/schema.ts'
import type { ChunkReader } from './chunk-reader.ts'
import type { Closure } from './closure.ts'
import { decodeObject } from './objects.ts'
import { type ObjectWanted, referencesFrom, type Wanted } from './wanted.ts'

/** A chunk that was stored just now, and looks like an object. */
export interface Arrival {
  readonly id: Id
  readonly bytes: Buffer
}

const atHandBytes = 8 * 1024 * 1024
/** What each of them costs beside its bytes. */
const arrivalCost = 400
/** Directories that wait to be looked into. */
const maxWaiting = 20_000
/** Chunks that are looked up at once, and objects that are decoded meanwhile, about. */
const chunksAtOnce = 1000
const objectsAtOnce = 256
/** How directories begin that this project writes. */
const directoryStart = Buffer.from('{"type":"directory"')

interface AtHand extends Arrival {
  wasEntered: boolean
}

/** An object whose references are looked at. */
interface Entered {
  readonly wanted: ObjectWanted
  readonly object: FileObject | DirectoryObject
  readonly references: readonly Wanted[]
}

export class Arrivals {
  private readonly closure: Closure
  private readonly reader: ChunkReader
  private readonly atHand = new LRUCache<Id, AtHand>({
    maxSize: atHandBytes,
    sizeCalculation: ({ bytes }) => bytes.length + arrivalCost,
  })
  private losses: number
  /** Directories, in the order in which they came. */
  private waiting: Id[] = []
  /** All that ever waited: those that wait still are the last of them. */
  private noted = 0
  private looking: Promise<void> | undefined
  /** The look at some of them that is under way. */
  private round: Promise<void> = Promise.resolve()

  constructor(closure: Closure, reader: ChunkReader) {
    this.closure = closure
    this.reader = reader
    this.losses = reader.losses
  }

  /** Takes what somebody stored who began when `losses` was `since`. Their bytes are this one's from now on. */
  note(arrivals: readonly Arrival[], since: number): void {
    this.forgetLost()
    if (since !== this.losses) return
    for (const { id, bytes } of arrivals) {
      this.atHand.set(id, { id, bytes, wasEntered: false })
      if (!isDirectory(bytes) || this.waiting.length >= maxWaiting) continue
      this.waiting.push(id)
      this.noted++
    }
    if (this.waiting.length > 0) this.looking ??= this.look()
  }

  /** Resolves when everything was looked into that came before; what others send meanwhile is not waited for. */
  async settled(): Promise<void> {
    const { noted } = this
    let isLast = false
    while (this.looking !== undefined && !isLast) {
      isLast = this.noted - this.waiting.length >= noted
      await this.round
    }
  }

  /** The bytes of an object that is here, if they are at hand, for the last time. */
  take(id: Id): Buffer | undefined {
    this.forgetLost()
    const arrival = this.atHand.get(id)
    this.atHand.delete(id)
    return arrival?.bytes
  }

  private forgetLost(): void {
    if (this.reader.losses === this.losses) return
    this.losses = this.reader.losses
    this.atHand.clear()
    this.waiting = []
  }

  private async look(): Promise<void> {
    while (this.waiting.length > 0) {
      // Whatever fails here the commit meets too, and tells.
      this.round = this.lookAtNext().catch(() => undefined)
      await this.round
    }
    this.looking = undefined
  }

  /** Enters some directories, with their lists before them, and remembers those of which everything is here. */
  private async lookAtNext(): Promise<void> {
    this.forgetLost()
    const since = this.losses
    const entered: Entered[] = []
    const chunks: Id[] = []
    while (chunks.length < chunksAtOnce && entered.length < objectsAtOnce) {
      const id = this.waiting.shift()
      if (id === undefined) break
      await this.enter({ id, as: 'directory', within: id }, entered, chunks)
    }
    const sizes = await this.reader.stat(chunks)
    let place = 0
    for (const { wanted, object, references } of entered) {
      let isWhole = true
      for (const reference of references) {
        if (reference.as === 'chunk') isWhole = isSize(reference, sizes[place++]) && isWhole
        else isWhole &&= this.isKnown(reference as ObjectWanted)
      }
      if (isWhole && this.conclude(wanted, object, since)) this.atHand.delete(wanted.id)
    }
  }

  private async enter(wanted: ObjectWanted, entered: Entered[], chunks: Id[]): Promise<void> {
    const arrival = this.atHand.get(wanted.id)
    if (arrival === undefined || arrival.wasEntered) return
    arrival.wasEntered = true
    // Decoding takes a millisecond; others have the event loop in between.
    await nextTurn()
    const found = referencesOf(wanted, arrival.bytes)
    if (found === undefined) return
    for (const reference of found.references) {
      if (reference.as !== 'file' || !this.atHand.has(reference.id)) continue
      await this.enter(reference as ObjectWanted, entered, chunks)
    }
    for (const reference of found.references) if (reference.as === 'chunk') chunks.push(reference.id)
    entered.push(found)
  }

  private conclude(wanted: ObjectWanted, object: FileObject | DirectoryObject, since: number): boolean {
    return unlessInvalid(() => this.closure.conclude(wanted, object, since)) === true
  }

  private isKnown(wanted: ObjectWanted): boolean {
    return unlessInvalid(() => this.closure.recall(wanted)) !== undefined
  }
}

function isDirectory(bytes: Buffer): boolean {
  return bytes.subarray(0, directoryStart.length).equals(directoryStart)
}

function isSize({ size }: Wanted, found: number | undefined): boolean {
  return found !== undefined && (size === undefined || size === found)
}

function referencesOf(wanted: ObjectWanted, bytes: Buffer): Entered | undefined {
  return unlessInvalid(() => {
    const object = decodeObject(wanted.as, bytes)
    return { wanted, object, references: referencesFrom(wanted, object) }
  })
}

/** What does not fit together is for the commit to refuse. */
function unlessInvalid<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch (error) {
    if (isProblem(error, 'invalid-object')) return undefined
    throw error
  }
}
