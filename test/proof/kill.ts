/**
 * The proof that kill -9 loses nothing that was promised, and leaves nothing behind for ever: `npm run proof:kill`.
 *
 *     CHUNKDAV_KILLS   default 200
 *     CHUNKDAV_SEED    of what is done and when; two processes and the disk have a say in the rest
 */
import { reportOf } from './kill-figures.ts'
import { runKills } from './kill-run.ts'

const kills = Number(process.env.CHUNKDAV_KILLS ?? 200)
const seed = Number(process.env.CHUNKDAV_SEED ?? Date.now() % 1_000_000_000)
console.log(`${kills} kills, seed ${seed}`)
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1))
const figures = await runKills({ kills, seed, fullCheckEvery: 25, tell: (line) => console.log(line) })

for (const line of reportOf(figures)) console.log(line)
const { failures } = figures
for (const failure of failures.slice(0, 20)) console.log(`  ${failure.slice(0, 3000)}`)
process.exitCode = failures.length > 0 ? 1 : 0
