import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Id } from '../../protocol/id.ts'
import { isProblem } from '../../protocol/problem.ts'
import { CheckpointState, parseJson } from '../../protocol/schema.ts'
import { parseCheckpointNumber } from '../../protocol/url.ts'
import { CheckpointFolder } from '../catalog/checkpoint-folder.ts'
import { itemBytes, itemPages } from '../catalog/item-list.ts'
import { nodeFiles } from '../file-layer.ts'
import { errorText, type Finding, note, plural, problem, warning } from './finding.ts'
import { namesIn, sizeOf } from './vault.ts'

type CheckpointFindings = AsyncGenerator<Finding, Map<Id, string>>

/** Nobody goes on with what is open for so long. */
const abandonedMs = 7 * 24 * 3_600_000

/** Whether checkpoints parse and their lists are whole; returns the roots of those that are committed. */
export async function* examineCheckpoints(path: string, place: string): CheckpointFindings {
  const roots = new Map<Id, string>()
  const folder = join(path, 'checkpoints')
  let committed = 0
  for (const source of (await namesIn(folder)).sort()) {
    const own = join(folder, source)
    if (!(await stat(own)).isDirectory()) continue
    const names = await namesIn(own)
    for (const number of await new CheckpointFolder(own).committedNumbers()) {
      committed++
      const state = yield* committedState(own, source, number, place)
      if (state?.root !== undefined) roots.set(state.root, `${source}/${number}`)
    }
    yield* examineOpen(own, source, names, place)
    const remainders = names.filter((name) => name.endsWith('.tmp'))
    if (remainders.length > 0) {
      const what = `${plural(remainders.length, 'remainder')} of a stop; the next start removes them`
      yield note(`${place}/checkpoints/${source}`, what)
    }
  }
  yield note(`${place}/checkpoints`, plural(committed, 'backup'))
  return roots
}

async function* committedState(
  folder: string,
  source: string,
  number: number,
  place: string,
): AsyncGenerator<Finding, CheckpointState | undefined> {
  const at = `${place}/checkpoints/${source}/${number}`
  const todo = `bring it back from a copy, or remove it: chunkdav forget URL ${source}/${number}`
  try {
    const own = new CheckpointFolder(folder)
    const state = await own.readCommitted(number)
    if (state?.kind !== 'chunks' || state.items === undefined) return state
    const path = own.itemsPath(number)
    const size = await sizeOf(path)
    if (size === undefined || size < state.items * itemBytes) {
      const has =
        size === undefined ? 'is gone' : `has ${Math.floor(size / itemBytes)} items of ${state.items}`
      yield problem(`${at}.items`, `the list of the backup ${has}`, todo)
      return state
    }
    // Reading them tells whether they are right.
    for await (const _ of itemPages(nodeFiles, path, state.items));
    return state
  } catch (error) {
    if (!isProblem(error)) throw error
    yield problem(`${at}.json`, error.message, todo)
    return undefined
  }
}

async function* examineOpen(
  folder: string,
  source: string,
  names: readonly string[],
  place: string,
): AsyncGenerator<Finding, void> {
  for (const name of names) {
    const number = name.endsWith('.open.json') ? parseCheckpointNumber(name.slice(0, -10)) : undefined
    if (number === undefined || names.includes(`${number}.json`)) continue
    const at = `${place}/checkpoints/${source}/${name}`
    try {
      const { openedAt } = parseJson(CheckpointState, await readFile(join(folder, name), 'utf8'))
      const ageMs = Date.now() - Date.parse(openedAt)
      const age = `begun at ${openedAt} and not finished`
      if (ageMs > abandonedMs) {
        yield warning(
          at,
          age,
          `run the backup of ${source} again, or: chunkdav forget URL ${source}/${number}`,
        )
      } else yield note(at, age)
    } catch (error) {
      if (!isProblem(error)) throw error
      yield warning(
        at,
        `it cannot be read: ${errorText(error)}`,
        'run the backup again, then remove this file',
      )
    }
  }
}
