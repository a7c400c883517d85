/**
 * The proof that neither a power cut nor a failing disk loses what was promised: `npm run proof:power-cuts`.
 *
 *     CHUNKDAV_CUTS     histories with power cuts, default 1000
 *     CHUNKDAV_SEED     the seed of the first one; each next has the next number
 *     CHUNKDAV_FAULTS   of the calls of a scripted history each so-manyth fails once; default 1, all; 0: none
 */
import { CutRun, noFigures } from './cut-run.ts'
import { allFaults, runWith, shortFiles } from './fault-run.ts'

const histories = Number(process.env.CHUNKDAV_CUTS ?? 1000)
const firstSeed = Number(process.env.CHUNKDAV_SEED ?? Date.now() % 1_000_000_000)
const everyFault = Number(process.env.CHUNKDAV_FAULTS ?? 1)
const failed: string[] = []

async function attempt(name: string, work: () => Promise<unknown>): Promise<void> {
  try {
    await work()
  } catch (error) {
    failed.push(name)
    console.error(error)
  }
}

function secondsSince(begun: number): string {
  return `${((performance.now() - begun) / 1000).toFixed(1)} s`
}

async function cutPower(): Promise<void> {
  const begun = performance.now()
  const figures = noFigures()
  console.log(`${histories} histories with power cuts, from seed ${firstSeed} on`)
  for (let i = 0; i < histories; i++) {
    await attempt(`seed ${firstSeed + i}`, () => CutRun.of(firstSeed + i, figures))
    if (i % 100 === 99) console.log(`${i + 1} histories in ${secondsSince(begun)}, ${failed.length} failed`)
  }
  console.log(`${figures.runs} of ${histories} histories went well, ${secondsSince(begun)}`)
  console.log(
    `  ${figures.cuts} power cuts and ${figures.kills} kills, ${figures.whileOpening} of them while opening`,
  )
  console.log(`  ${figures.operations} operations, ${figures.bytes} bytes put`)
  console.log(`  ${figures.moments} moments at which it could have ended`)
}

async function failCalls(): Promise<void> {
  const begun = performance.now()
  await attempt('short reads and writes', () => runWith(undefined, shortFiles))
  const faults = (await allFaults()).filter((_, place) => place % everyFault === 0)
  console.log(
    `${faults.length} faults, one in each run of a scripted history; all reads and writes short in one`,
  )
  for (const fault of faults) await attempt(JSON.stringify(fault), () => runWith(fault))
  console.log(`${faults.length} faults, ${secondsSince(begun)}`)
}

if (histories > 0) await cutPower()
if (everyFault > 0) await failCalls()
console.log(failed.length === 0 ? 'nothing failed' : `${failed.length} failed: ${failed.join('; ')}`)
process.exitCode = failed.length > 0 ? 1 : 0
