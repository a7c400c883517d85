import { join } from 'node:path'
import type { Id } from '../../protocol/id.ts'
import { isProblem } from '../../protocol/problem.ts'
import { nodeFiles } from '../file-layer.ts'
import { ContentIndex } from '../store/content-index.ts'
import { type LocatedRow, strayRows } from '../store/pack-audit.ts'
import { type Position, packName } from '../store/pack-file.ts'
import { type Examined, type Findings, note, plural, problem, warning } from './finding.ts'
import { type LevelView, viewLevel } from './level-view.ts'
import type { SeenPack } from './packs.ts'
import { namesIn } from './vault.ts'

export interface IndexSubject {
  readonly path: string
  readonly place: string
  readonly packs: readonly SeenPack[]
  /** The roots of committed checkpoints. */
  readonly roots: ReadonlyMap<Id, string>
}

/** Rows that are looked at without `deep`, about. */
const sampledRows = 2000
const rowsAtOnce = 1000

/** Whether the index opens, belongs to the packs, and points at records. */
export async function* examineIndex(examined: Examined, subject: IndexSubject): Findings {
  const { path, packs } = subject
  const place = `${subject.place}/index`
  const reindex = `stop the receiver, then: chunkdav reindex --data ${examined.shell}`
  const torn = packs.find(({ tornAt }) => tornAt !== undefined)
  const packPlace = torn && `${subject.place}/packs/${packName(torn.pack)}`
  if (examined.isInUse) return
  if (!(await namesIn(join(path, 'index'))).includes('CURRENT')) {
    if (torn !== undefined) yield tornNote(packPlace ?? place, torn)
    if (packs.length > 0)
      yield note(place, 'there is none; the next start makes it from the packs, which takes a while')
    return
  }
  await using view: LevelView = await viewLevel(join(path, 'index'))
  let index: ContentIndex
  try {
    index = await ContentIndex.open(view.folder)
  } catch (error) {
    if (!isProblem(error)) throw error
    yield problem(place, `it does not open: ${reasonOf(error)}`, reindex)
    return
  }
  try {
    const { mark } = index
    if (torn !== undefined && packPlace !== undefined) {
      const isPromised = mark !== undefined && mark.pack === torn.pack && (torn.tornAt ?? 0) < mark.offset
      if (!isPromised) yield tornNote(packPlace, torn)
      else {
        const what = `from byte ${torn.tornAt} it is damaged or cut off, and that was stored safely once`
        yield problem(
          packPlace,
          what,
          'look at the disk; start the receiver, back up again, and chunkdav check',
        )
      }
    }
    const fault = faultOfMark(mark, packs)
    if (fault !== undefined) {
      const todo = 'the next start makes it anew from the packs; bring missing packs back before that'
      yield (mark === undefined ? warning : problem)(place, fault, todo)
      if (mark !== undefined) return
    }
    yield* examineRows(examined, subject, index, place)
  } catch (error) {
    if (!isProblem(error, 'store-corrupt')) throw error
    yield problem(place, reasonOf(error), reindex)
  } finally {
    await index.close()
  }
}

function tornNote(place: string, { tornAt }: SeenPack) {
  return note(
    place,
    `it ends in something unfinished, from byte ${tornAt}: normal after a crash; the next start cuts it off`,
  )
}

function faultOfMark(mark: Position | undefined, packs: readonly SeenPack[]): string | undefined {
  if (mark === undefined) return packs.length === 0 ? undefined : 'it knows no packs, and there are some'
  if (mark.offset === 0) return undefined
  const pack = packs.find((each) => each.pack === mark.pack)
  if (pack === undefined) return `it knows ${packName(mark.pack)}, which is gone: it belongs to other packs`
  if (pack.bytes >= mark.offset) return undefined
  return `${packName(mark.pack)} has ${pack.bytes} bytes and should have ${mark.offset} at least`
}

async function* examineRows(
  { deep }: Examined,
  { path, roots, packs }: IndexSubject,
  index: ContentIndex,
  place: string,
): Findings {
  const step = deep ? 1 : Math.max(1, Math.floor(index.chunks / sampledRows))
  let rows = 0
  let looked = 0
  let stray = 0
  let example: string | undefined
  let page: Id[] = []
  const look = async (): Promise<void> => {
    const found = await index.find(page)
    const located = page.flatMap((id, i): LocatedRow[] =>
      found[i] === undefined ? [] : [{ id, ...found[i] }],
    )
    const bad = await strayRows(nodeFiles, join(path, 'packs'), located)
    looked += located.length
    stray += bad.length
    const [first] = bad
    if (first !== undefined) example ??= `${first.id} in ${packName(first.location.pack)}: ${first.damage}`
    page = []
  }
  for await (const { id } of index.list()) {
    if (rows++ % step === 0) page.push(id)
    if (page.length === rowsAtOnce) await look()
  }
  await look()
  const scope = step === 1 ? 'all' : `${looked.toLocaleString('en')} of ${rows.toLocaleString('en')}`
  if (stray > 0) {
    const todo =
      'start the receiver and let it find all of them: chunkdav check; the next backup sends them again'
    yield problem(place, `${plural(stray, 'row')} of ${looked} looked at point at nothing; ${example}`, todo)
  } else yield note(place, `${plural(rows, 'row')}, ${scope} of them looked at`)
  const ids = [...roots.keys()]
  const found = packs.length === 0 && ids.length === 0 ? [] : await index.find(ids)
  for (const [i, id] of ids.entries()) {
    if (found[i] !== undefined) continue
    const todo = 'back up again from the same source; when that does not bring it back, chunkdav forget it'
    yield problem(place, `the root directory of backup ${roots.get(id)} is gone (${id})`, todo)
  }
}

function reasonOf(error: Error): string {
  let root: Error = error
  while (root.cause instanceof Error) root = root.cause
  return root === error ? error.message : root.message
}
