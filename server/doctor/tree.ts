import { join } from 'node:path'
import { Level } from 'level'
import { isProblem } from '../../protocol/problem.ts'
import { lacksCurrent } from '../catalog/tree-database.ts'
import { decodeJson, keys, type TreeRecord, unsealed } from '../catalog/tree-records.ts'
import { type Examined, errorText, type Findings, note, plural, problem, shellWord } from './finding.ts'
import { viewLevel } from './level-view.ts'
import { namesIn } from './vault.ts'

/** Whether the live tree opens, and each of its records is what was written. */
export async function* examineTree(
  { dataDir, isInUse }: Examined,
  path: string,
  vaultPlace: string,
): Findings {
  const place = `${vaultPlace}/tree`
  const names = isInUse ? [] : await namesIn(join(path, 'tree'))
  if (names.length === 0) return
  const folder = shellWord(join(dataDir, place))
  const todo = `stop the receiver, then: mv ${folder} ${folder}.damaged; the tree is empty then, and its last frozen state is in snapshots/. The next garbage collection deletes what only the old one refers to: serve with --gc off until that is not needed`
  if (await lacksCurrent(join(path, 'tree'))) {
    yield problem(
      place,
      'its file CURRENT is gone, and there is data',
      `bring it back from a copy; or ${todo}`,
    )
    return
  }
  if (!names.includes('CURRENT')) return
  await using view = await viewLevel(join(path, 'tree'))
  const level = new Level<Buffer, Buffer>(view.folder, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
  try {
    await level.open()
  } catch (error) {
    yield problem(
      place,
      `it does not open: ${errorText(error instanceof Error ? (error.cause ?? error) : error)}`,
      todo,
    )
    return
  }
  let rows = 0
  let damaged = 0
  let files = 0
  try {
    for await (const [key, value] of level.iterator()) {
      rows++
      try {
        const text = unsealed(key, value)
        if (key[0] === keys.allEntries[0] && decodeJson<TreeRecord>(text).kind === 'file') files++
      } catch (error) {
        if (!isProblem(error, 'store-corrupt')) throw error
        damaged++
      }
    }
  } catch (error) {
    // LevelDB met what it cannot read.
    yield problem(place, `it cannot be read: ${errorText(error)}`, todo)
    return
  } finally {
    await level.close()
  }
  if (damaged > 0) yield problem(place, `${plural(damaged, 'record')} of ${rows} are damaged`, todo)
  else yield note(place, plural(files, 'file'))
}
