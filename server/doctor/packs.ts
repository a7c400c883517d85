import { join } from 'node:path'
import { isProblem } from '../../protocol/problem.ts'
import { nodeFiles, type StoreFile } from '../file-layer.ts'
import { packsIn, walkHeaders } from '../store/pack-audit.ts'
import { packHeaderBytes, packHeaderIsRight, packName, packNumber, scanRecords } from '../store/pack-file.ts'
import { readableFile } from '../store/readable-file.ts'
import { Quarantine } from '../upkeep/quarantine.ts'
import { type Examined, errorCode, type Finding, note, plural, problem, warning } from './finding.ts'
import { namesIn } from './vault.ts'

/** A pack, and where the damage in its middle or at its end begins. */
export interface SeenPack {
  readonly pack: number
  readonly bytes: number
  readonly tornAt?: number
}

type PackFindings = AsyncGenerator<Finding, SeenPack[]>

const remedy = (vault: string): string =>
  `start the receiver and let it say what is harmed: chunkdav check http://HOST:PORT/${vault}; the next backup heals it`

/** Names, headers and records of the packs; with `deep` every chunk. */
export async function* examinePacks(examined: Examined, path: string, place: string): PackFindings {
  const folder = join(path, 'packs')
  for (const name of await namesIn(folder)) {
    if (packNumber(name) === undefined) {
      yield warning(`${place}/packs/${name}`, 'it is no pack, and nothing reads it', 'move it elsewhere')
    }
  }
  const found = await packsIn(nodeFiles, folder)
  const seen: SeenPack[] = []
  let records = 0
  for (const [i, { pack, bytes }] of found.entries()) {
    const isLast = i === found.length - 1
    let file: StoreFile
    try {
      file = readableFile(await nodeFiles.open(join(folder, packName(pack)), 'read'))
    } catch (error) {
      // A collection has removed it.
      if (errorCode(error) === 'ENOENT') continue
      throw error
    }
    try {
      const examination = examinePack(examined, { path, place, file, pack, bytes, isLast })
      for (;;) {
        const step = await examination.next()
        if (step.done) {
          records += step.value.records
          seen.push({ pack, bytes, ...(step.value.tornAt !== undefined && { tornAt: step.value.tornAt }) })
          break
        }
        yield step.value
      }
    } finally {
      await file.close()
    }
  }
  const bytes = found.reduce((sum, each) => sum + each.bytes, 0)
  const how = examined.deep ? ', each chunk hashed' : ''
  yield note(
    `${place}/packs`,
    `${plural(records, 'block')} in ${plural(found.length, 'pack')}, ${bytes} bytes${how}`,
  )
  return seen
}

interface PackSubject {
  readonly path: string
  readonly place: string
  readonly file: StoreFile
  readonly pack: number
  readonly bytes: number
  readonly isLast: boolean
}

type OnePack = AsyncGenerator<Finding, { records: number; tornAt?: number }>

async function* examinePack(examined: Examined, subject: PackSubject): OnePack {
  const { file, pack, bytes, isLast, path } = subject
  const place = `${subject.place}/packs/${packName(pack)}`
  const vault = path.slice(path.lastIndexOf('/') + 1)
  if (isLast && bytes < packHeaderBytes) {
    yield note(place, 'a stop has left it without a header; the next start makes it anew')
    return { records: 0 }
  }
  try {
    if (!(await packHeaderIsRight(file, packName(pack)))) {
      yield warning(
        place,
        'its header is damaged; that costs nothing, but the disk may be failing',
        'look at the disk',
      )
    }
  } catch (error) {
    if (!isProblem(error, 'store-corrupt')) throw error
    yield problem(place, error.message, 'run the chunkdav that wrote it')
    return { records: 0 }
  }
  const quarantine = new Quarantine(path)
  let records = 0
  let tornAt: number | undefined
  const steps = examined.deep
    ? scanRecords(file, { start: packHeaderBytes, size: bytes, verify: true })
    : walkHeaders(file, bytes)
  for await (const step of steps) {
    if (!('damage' in step)) {
      records++
      continue
    }
    const { offset, damage } = step
    const end = 'damagedBytes' in step ? offset + step.damagedBytes : bytes
    if (isLast && end === bytes) {
      // Whether anything was promised of it is for the index to say.
      tornAt = offset
    } else if (await quarantine.has({ pack, offset })) {
      yield note(place, `from byte ${offset}: ${damage}; scrub has put it aside`)
    } else {
      const more = examined.deep ? '' : '; look at all of it with --deep'
      yield problem(place, `from byte ${offset}: ${damage}${more}`, remedy(vault))
    }
  }
  return { records, ...(tornAt !== undefined && { tornAt }) }
}
