/**
 * The proof that a power cut loses nothing that was promised: `npm run proof:power-cuts`.
 *
 *     CHUNKDAV_CUTS   histories, default 1000
 *     CHUNKDAV_SEED   the seed of the first one; each next has the next number
 */
import { CutRun, noFigures } from './cut-run.ts'

const histories = Number(process.env.CHUNKDAV_CUTS ?? 1000)
const firstSeed = Number(process.env.CHUNKDAV_SEED ?? Date.now() % 1_000_000_000)
const begun = performance.now()
const figures = noFigures()
const failed: number[] = []

console.log(`${histories} histories from seed ${firstSeed} on`)
for (let i = 0; i < histories; i++) {
  try {
    await CutRun.of(firstSeed + i, figures)
  } catch (error) {
    failed.push(firstSeed + i)
    console.error(error)
  }
  if (i % 100 === 99) console.log(`${i + 1} histories, ${failed.length} failed`)
}
const seconds = (performance.now() - begun) / 1000
console.log(
  [
    `${figures.runs} histories went well, ${failed.length} failed${failed.length > 0 ? `: ${failed.join(', ')}` : ''}`,
    `${figures.cuts} power cuts and ${figures.kills} kills, ${figures.whileOpening} of them while opening`,
    `${figures.operations} operations, ${figures.bytes} bytes put, ${figures.moments} moments at which it could have ended`,
    `${seconds.toFixed(1)} s`,
  ].join('\n'),
)
process.exitCode = failed.length > 0 ? 1 : 0
