/**
 * What the folder of a vault tells without the vault being open: its checkpoints, settings, and what came of upkeep. A
 * look costs a stat(2) for each source; a folder or file is read again only when it has changed.
 */
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { parseCheckpointNumber } from '../../protocol/url.ts'

export interface SourceFigures {
  readonly committed: number
  readonly open: number
  /** Of the committed checkpoint with the highest number, in ms. */
  readonly lastCommittedAt?: number
}

/** What stands in `upkeep/{kind}.json`, as upkeep/jobs.ts writes it. */
export interface JobFigures {
  readonly finishedAt: number
  readonly isDone: boolean
  readonly report: Readonly<Record<string, unknown>>
}

export interface VaultFigures {
  /** Sources that have checkpoints. */
  readonly sources: ReadonlyMap<string, SourceFigures>
  readonly collection?: JobFigures
  readonly scrub?: JobFigures
  readonly quotaBytes?: number
}

/** A folder's time has the grain of the kernel's clock: what changed so lately may change again unseen. */
const settledMs = 1000

type Json = Readonly<Record<string, unknown>>

interface Known<T> {
  readonly mark: string
  readonly value: T
}

/** One vault's folder. Callers look one after the other. */
export class VaultFolder {
  readonly #path: string
  readonly #files = new Map<string, Known<Json | undefined>>()
  #sources = new Map<string, Known<SourceFigures>>()
  #packBytes: number | undefined

  constructor(path: string) {
    this.#path = path
  }

  async look(): Promise<VaultFigures> {
    const settings = await this.#json('settings.json')
    const collection = jobFigures(await this.#json('upkeep/collection.json'))
    const scrub = jobFigures(await this.#json('upkeep/scrub.json'))
    const quotaBytes = settings?.quotaBytes
    return {
      sources: await this.#lookAtSources(),
      ...(collection && { collection }),
      ...(scrub && { scrub }),
      ...(typeof quotaBytes === 'number' && { quotaBytes }),
    }
  }

  /** The size of all packs of a vault that is closed. Kept until `forgetPacks`: nobody writes to it meanwhile. */
  async packBytes(): Promise<number> {
    if (this.#packBytes !== undefined) return this.#packBytes
    const folder = join(this.#path, 'packs')
    let bytes = 0
    for (const name of await namesIn(folder)) {
      if (name.endsWith('.pack')) bytes += (await stat(join(folder, name)).catch(absent))?.size ?? 0
    }
    this.#packBytes = bytes
    return bytes
  }

  forgetPacks(): void {
    this.#packBytes = undefined
  }

  async #lookAtSources(): Promise<Map<string, SourceFigures>> {
    const folder = join(this.#path, 'checkpoints')
    const before = this.#sources
    const seen = new Map<string, Known<SourceFigures>>()
    for (const name of await namesIn(folder)) {
      const known = await lookAtSource(join(folder, name), before.get(name))
      if (known !== undefined) seen.set(name, known)
    }
    this.#sources = seen
    const figures = [...seen].map(([name, { value }]) => [name, value] as const)
    return new Map(figures.filter(([, { committed, open }]) => committed + open > 0))
  }

  /** The object in a JSON file; undefined when there is none, or it is damaged: telling that is others' business. */
  async #json(name: string): Promise<Json | undefined> {
    const path = join(this.#path, name)
    const found = await stat(path).catch(absent)
    if (found === undefined) return undefined
    const mark = `${found.ino} ${found.mtimeMs} ${found.size}`
    const known = this.#files.get(name)
    if (known?.mark === mark) return known.value
    const value = await readJson(path)
    this.#files.set(name, { mark, value })
    return value
  }
}

async function lookAtSource(
  path: string,
  known: Known<SourceFigures> | undefined,
): Promise<Known<SourceFigures> | undefined> {
  const now = Date.now()
  const found = await stat(path).catch(absent)
  if (found?.isDirectory() !== true) return undefined
  const mark = found.mtimeMs > now - settledMs ? 'unsettled' : `${found.ino} ${found.mtimeMs}`
  if (known !== undefined && known.mark === mark && mark !== 'unsettled') return known
  let open = 0
  let last = 0
  const committed = new Set<number>()
  const opened: number[] = []
  for (const name of await namesIn(path)) {
    const [digits = '', ...rest] = name.split('.')
    const number = parseCheckpointNumber(digits)
    if (number === undefined) continue
    const suffix = rest.join('.')
    if (suffix === 'open.json') opened.push(number)
    if (suffix !== 'json') continue
    committed.add(number)
    last = Math.max(last, number)
  }
  // A crash may leave both files: then it is committed.
  for (const number of opened) if (!committed.has(number)) open++
  const state = last === 0 ? undefined : await readJson(join(path, `${last}.json`))
  const lastCommittedAt = timeOf(state?.committedAt)
  return {
    mark,
    value: { committed: committed.size, open, ...(lastCommittedAt !== undefined && { lastCommittedAt }) },
  }
}

function jobFigures(state: Json | undefined): JobFigures | undefined {
  const finishedAt = timeOf(state?.finishedAt)
  if (state === undefined || finishedAt === undefined) return undefined
  const report = typeof state.report === 'object' && state.report !== null ? state.report : {}
  return { finishedAt, isDone: state.outcome === 'done', report: report as Json }
}

function timeOf(text: unknown): number | undefined {
  const ms = typeof text === 'string' ? Date.parse(text) : Number.NaN
  return Number.isNaN(ms) ? undefined : ms
}

async function readJson(path: string): Promise<Json | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(path, 'utf8'))
    return typeof value === 'object' && value !== null ? (value as Json) : undefined
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    return absent(error)
  }
}

async function namesIn(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(absent)) ?? []
}

/** For what may be gone by the time that one looks. */
function absent(error: unknown): undefined {
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
  throw error
}
