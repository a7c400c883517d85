/** What is looked for after the kills of a kill proof. Each throws, or tells `failed`, what is not as it was promised. */

import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ReceiverClient } from '../../client/receiver-client.ts'
import type { CollectionState } from '../../protocol/schema.ts'
import { sourceSpace } from '../../server/catalog/checkpoint-space.ts'
import type { Dice } from '../support/dice.ts'
import type { KillClient } from './kill-client.ts'
import type { KillFigures } from './kill-figures.ts'
import type { KillModel } from './kill-model.ts'
import { askDoctor } from './kill-process.ts'
import type { KillTreeClient } from './kill-tree-client.ts'

export interface KillChecksOptions {
  readonly dataDir: string
  readonly vault: string
  readonly sources: readonly string[]
  readonly admin: ReceiverClient
  /** Reads for all. */
  readonly reader: KillClient
  readonly tree: KillTreeClient
  readonly model: KillModel
  readonly figures: KillFigures
  readonly failed: (what: string, error: unknown) => void
}

/** What a vault has that was never backed up to, but for the numbers that are not given again. */
const remaining =
  /^(packs|index|tree)\/|^settings\.json$|^upkeep\/(collection|scrub)\.json$|^checkpoints\/[^/]+\/last$/
/** A pack that nothing was written to yet. */
const emptyPackBytes = 16
const maxCollections = 10

export class KillChecks {
  readonly #options: KillChecksOptions
  /** The collection that ran when the receiver was killed, as far as anybody knows. */
  struck: CollectionState['running']
  #lastSeen: string | undefined

  constructor(options: KillChecksOptions) {
    this.#options = options
  }

  /** It is well, it lists what it promised, and one of these is read back. */
  async quick(dice: Dice): Promise<void> {
    const { admin, reader, sources, figures } = this.#options
    const { status } = await admin.health()
    if (status !== 'ok') throw new Error(`it is ${status}`)
    this.#note(await admin.collectionState())
    for (const source of sources) await reader.checkList(source)
    await reader.restoreOne(dice.of(sources))
    figures.quickChecks++
  }

  /** Everything is read back, while no client is at work. */
  async everything(): Promise<void> {
    const { admin, reader, sources, model, tree } = this.#options
    for (const source of sources) {
      await reader.checkList(source)
      for (const number of await reader.committed(source)) {
        const known = model.get(source, number)
        if (known !== undefined) await reader.restore(known)
      }
    }
    await tree.checkTree()
    this.#note(await admin.collectionState())
  }

  /** No receiver must be at work. */
  async doctor(when: string): Promise<void> {
    const { dataDir, figures, failed } = this.#options
    const { problems, warnings } = await askDoctor(dataDir)
    for (const what of problems) failed(`doctor ${when}`, what)
    for (const what of warnings) figures.doctorWarnings.add(what)
  }

  async deleteAll(): Promise<void> {
    const { admin, tree } = this.#options
    for (const source of await admin.sources()) {
      for (const { number } of await admin.listCheckpoints(source)) {
        await admin.removeCheckpoint({ source, number })
      }
    }
    await tree.clear()
  }

  async collectUntilNothing(): Promise<void> {
    const { admin, figures } = this.#options
    for (let i = 1; i <= maxCollections; i++) {
      figures.lastCollections = i
      let state = await admin.startCollection({ minGarbage: 0 })
      while (state.running !== undefined) {
        await sleep(20)
        state = await admin.collectionState()
      }
      this.#note(state)
      if (state.last?.outcome === 'done' && state.last.report.packs === 0) return
    }
    throw new Error(`${maxCollections} collections have not given back all`)
  }

  /** Nothing is stored any more. */
  async nothing(): Promise<void> {
    const { admin, dataDir, vault, figures, failed } = this.#options
    const { chunks, storedBytes } = await admin.capabilities()
    const folder = join(dataDir, 'vaults', vault)
    const packs = readdirSync(join(folder, 'packs'))
    const onDisk = packs.reduce((sum, name) => sum + statSync(join(folder, 'packs', name)).size, 0)
    figures.leftBytes = onDisk
    if (chunks !== 0) failed('the end', `${chunks} chunks are left`)
    if (onDisk > 2 * emptyPackBytes) failed('the end', `${onDisk} bytes of packs are left`)
    // Of a source its folder stays, which counts.
    const sources = readdirSync(join(folder, 'checkpoints')).length
    const expected = onDisk + sources * sourceSpace
    if (storedBytes !== expected) failed('the end', `${storedBytes} bytes are told of, ${expected} are there`)
    const others = filesBelow(folder).filter((path) => !remaining.test(path))
    if (others.length > 0) failed('the end', `files are left: ${others.join(', ')}`)
  }

  #note({ last }: CollectionState): void {
    const { figures, failed } = this.#options
    const { struck } = this
    this.struck = undefined
    if (struck !== undefined && (last === undefined || last.startedAt < struck.startedAt)) {
      figures.inCollection++
      if (struck.progress.phase === 'sweep') figures.inSweep++
    }
    if (last === undefined || last.startedAt === this.#lastSeen) return
    this.#lastSeen = last.startedAt
    if (last.outcome === 'failed') failed('a collection', last.detail)
    if (last.outcome === 'done') figures.collectionsDone++
    figures.freedBytes += last.report.freedBytes
    figures.movedBytes += last.report.movedBytes
  }
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((path) =>
    statSync(join(folder, path)).isFile(),
  )
}
