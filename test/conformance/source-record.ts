/**
 * What a walk and what reading must look like, event by event. Both records throw at the first event that
 * breaks the protocol of Source, so that a failure names the event and not its consequences.
 */
import assert from 'node:assert/strict'
import type {
  FileToRead,
  FillEvent,
  ScanEvent,
  ScannedEntry,
  SourceStat,
} from '../../client/engine/source.ts'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import type { ProblemCode } from '../../protocol/problem.ts'

export type { FileToRead, Filled, Source } from '../../client/engine/source.ts'

export interface WalkedEntry {
  /** Below the root, a byte string. */
  readonly path: string
  readonly kind: ScannedEntry['kind']
  readonly stat: SourceStat
  readonly target: string | undefined
}

interface Level {
  readonly path: string
  listed: boolean
  last: Buffer | undefined
  /** Directories that were told of and not entered yet, in order. */
  readonly pending: string[]
}

export class WalkRecord {
  readonly entries: WalkedEntry[] = []
  /** Every directory that was entered, the root first with an empty path. */
  readonly entered: { readonly path: string; readonly stat: SourceStat }[] = []
  readonly problems: { readonly path: string; readonly code: ProblemCode }[] = []
  #levels: Level[] = []
  #ended = false

  take(event: ScanEvent): void {
    if (event.type === 'problem') {
      this.problems.push({ path: event.path.toString('latin1'), code: event.code })
      return
    }
    assert.equal(this.#ended, false, `nothing follows the root's end, but ${event.type}`)
    if (event.type === 'enter') this.#enter(event.name.toString('latin1'), event.stat)
    else if (event.type === 'entries') for (const entry of event.entries) this.#entry(entry)
    else if (event.type === 'listed') this.#listed()
    else this.#leave()
  }

  /** The walk is over. */
  end(): void {
    assert.ok(this.#ended, 'the root was left')
  }

  #level(): Level {
    const level = this.#levels.at(-1)
    assert.ok(level !== undefined, 'a directory is open')
    return level
  }

  #enter(name: string, stat: SourceStat): void {
    const parent = this.#levels.at(-1)
    let path = ''
    if (parent === undefined) {
      assert.equal(this.entered.length, 0, 'there is one root')
      assert.equal(name, '', 'the root has no name')
    } else {
      assert.ok(parent.listed, 'directories are entered when their parent is listed')
      assert.equal(name, parent.pending.shift(), 'directories are entered in order, each once')
      path = parent.path === '' ? name : `${parent.path}/${name}`
    }
    this.entered.push({ path, stat })
    this.#levels.push({ path, listed: false, last: undefined, pending: [] })
  }

  #entry({ name, kind, stat, target }: ScannedEntry): void {
    const level = this.#level()
    assert.equal(level.listed, false, 'entries come before `listed`')
    assert.ok(name.length > 0 && !name.includes(0x2f) && !name.includes(0), `"${name}" is a name`)
    if (level.last !== undefined) {
      assert.ok(Buffer.compare(level.last, name) < 0, `"${level.last}" comes before "${name}"`)
    }
    level.last = name
    const text = name.toString('latin1')
    assert.equal(target !== undefined, kind === 'symlink', 'a symlink has a target, and nothing else has')
    if (kind === 'directory') level.pending.push(text)
    const path = level.path === '' ? text : `${level.path}/${text}`
    this.entries.push({ path, kind, stat, target: target?.toString('latin1') })
  }

  #listed(): void {
    const level = this.#level()
    assert.equal(level.listed, false, 'a directory is listed once')
    level.listed = true
  }

  #leave(): void {
    const level = this.#level()
    assert.ok(level.listed, 'a directory is listed before it is left')
    assert.deepEqual(level.pending, [], 'a directory is left when all below it was entered')
    this.#levels.pop()
    this.#ended = this.#levels.length === 0
  }
}

export interface FileReading {
  ids: Id[]
  /** Copies of the chunks. */
  pieces: Buffer[]
  done: (FillEvent & { type: 'done' }) | undefined
  failure: ProblemCode | undefined
}

export class ReadingRecord {
  readonly files: FileReading[]
  #at = 0

  constructor(asked: readonly FileToRead[], files?: FileReading[]) {
    this.files = files ?? asked.map(() => ({ ids: [], pieces: [], done: undefined, failure: undefined }))
  }

  take(event: FillEvent): void {
    const file = this.files[event.file]
    assert.ok(file !== undefined, `file ${event.file} was asked for`)
    assert.equal(event.file, this.#at, 'files are read one after the other, in order')
    if (event.type === 'chunk') {
      assert.equal(hashId(event.bytes), event.id, 'a chunk has the id of its bytes')
      file.ids.push(event.id)
      file.pieces.push(Buffer.from(event.bytes))
    } else if (event.type === 'again') {
      file.ids = []
      file.pieces = []
    } else {
      if (event.type === 'done') {
        assert.ok(file.ids.length > 0, `file ${event.file} has a chunk, even if it is empty`)
        file.done = event
      } else file.failure = event.problem.code
      this.#at++
    }
  }

  /** All was read. */
  end(): void {
    assert.equal(this.#at, this.files.length, 'every file was read or has failed')
  }
}
