/** What doctor looks at in a vault's folder. */
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { isProblem, type Problem } from '../../protocol/problem.ts'
import { check, ScrubHarm } from '../../protocol/schema.ts'
import { isHarmless } from '../upkeep/harm.ts'
import { Settings } from '../upkeep/settings.ts'
import { examineCheckpoints } from './checkpoints.ts'
import { examineIndex } from './content-index.ts'
import { type Examined, errorCode, type Findings, note, plural, problem, warning } from './finding.ts'
import { examinePacks } from './packs.ts'
import { examineTree } from './tree.ts'

/** Everything of one vault, in the order in which it depends on each other. */
export async function* examineVault(examined: Examined, name: string): Findings {
  const place = `vaults/${name}`
  const path = join(examined.dataDir, place)
  yield* examineSettings(path, place)
  const packs = yield* examinePacks(examined, path, place)
  const roots = yield* examineCheckpoints(path, place)
  yield* examineIndex(examined, { path, place, packs, roots })
  yield* examineTree(examined, path, place)
  yield* examineQuarantine(path, place)
  yield* examineUpkeep(path, place, name)
}

async function* examineSettings(path: string, place: string): Findings {
  let fault: Problem | undefined
  await Settings.open(path, (problem) => {
    fault = problem
  })
  if (fault === undefined) return
  const todo = 'set them anew (chunkdav policy, chunkdav quota); until then nothing is pruned'
  yield problem(`${place}/settings.json`, fault.message, todo)
}

async function* examineQuarantine(path: string, place: string): Findings {
  const notes = (await namesIn(join(path, 'quarantine'))).filter((name) => name.endsWith('.json'))
  if (notes.length === 0) return
  const what = `${plural(notes.length, 'damaged block was', 'damaged blocks were')} put aside by scrub`
  yield warning(
    `${place}/quarantine`,
    what,
    'look at the disk, which may be failing; when that is done, the folder may be removed',
  )
}

/** After this time without one a scrub is missed. */
const scrubIsLateMs = 45 * 24 * 3_600_000

interface LastRun {
  readonly finishedAt?: unknown
  readonly outcome?: unknown
  readonly detail?: unknown
  readonly report?: { readonly lastCompleteAt?: unknown; readonly harm?: unknown }
}

async function* examineUpkeep(path: string, place: string, name: string): Findings {
  const collection = await jsonIn<LastRun>(join(path, 'upkeep/collection.json'))
  if (collection?.outcome === 'failed') {
    const what = `the last garbage collection failed: ${String(collection.detail)}`
    const again = `when that is mended: chunkdav gc http://HOST:PORT/${name}`
    yield warning(`${place}/upkeep/collection.json`, what, again)
  } else if (collection !== undefined) {
    yield note(
      `${place}/upkeep/collection.json`,
      `the last garbage collection ended at ${String(collection.finishedAt)}`,
    )
  }
  const last = await jsonIn<LastRun>(join(path, 'upkeep/scrub.json'))
  const todo = `let the receiver read it: chunkdav check http://HOST:PORT/${name}`
  const at = `${place}/upkeep/scrub.json`
  const completeAt = last?.report?.lastCompleteAt
  if (typeof completeAt !== 'string') {
    yield note(at, 'what is stored here has not been read wholly by a scrub yet')
  } else if (Date.now() - Date.parse(completeAt) > scrubIsLateMs) {
    yield warning(at, `the last scrub that read everything ended at ${completeAt}`, todo)
  } else yield note(at, `a scrub has read everything by ${completeAt}`)
  if (last?.outcome === 'failed') yield warning(at, `the last scrub failed: ${String(last.detail)}`, todo)
  const harm = harmIn(last)
  if (harm !== undefined && !isHarmless(harm)) {
    const { checkpoints, tree } = harm
    const names = checkpoints.slice(0, 5).map(({ source, number }) => `${source}/${number}`)
    const rest = checkpoints.length > names.length ? ` and ${checkpoints.length - names.length} more` : ''
    const what = [
      ...(names.length > 0 ? [`backups ${names.join(', ')}${rest}`] : []),
      ...(tree ? ['the live tree'] : []),
    ]
    const remedy = `see which files: chunkdav check http://HOST:PORT/${name}; back up again what is still there`
    yield problem(place, `content of ${what.join(' and of ')} is damaged or gone, as of ${harm.at}`, remedy)
  }
}

function harmIn(last: LastRun | undefined): ScrubHarm | undefined {
  try {
    return last?.report?.harm === undefined ? undefined : check(ScrubHarm, last.report.harm)
  } catch (error) {
    if (isProblem(error)) return undefined
    throw error
  }
}

/** What a file holds; undefined when it is not there, or is no JSON: a report that is gone costs nothing. */
async function jsonIn<T>(path: string): Promise<T | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as T
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || error instanceof SyntaxError) return undefined
    throw error
  }
}

/** None when there is no such folder. */
export async function namesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return []
    throw error
  }
}

export async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw error
  }
}
