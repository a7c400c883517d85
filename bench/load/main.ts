/**
 * `npm run proof:load`: 64 clients for five minutes. Exit code 1 when anything went wrong.
 *
 *     CHUNKDAV_LOAD_CLIENTS=64 CHUNKDAV_LOAD_SECONDS=300 CHUNKDAV_LOAD_SEED=… npm run -s proof:load
 */
import { leaveNothing } from '../leave-nothing.ts'
import { fairnessOf, runLoad } from './load.ts'

leaveNothing()

const { CHUNKDAV_LOAD_CLIENTS, CHUNKDAV_LOAD_SECONDS, CHUNKDAV_LOAD_SEED } = process.env
const clients = Number(CHUNKDAV_LOAD_CLIENTS ?? 64)
const seconds = Number(CHUNKDAV_LOAD_SECONDS ?? 300)
const seed = CHUNKDAV_LOAD_SEED ?? String(Date.now())
console.log(`${clients} clients for ${seconds} s, seed ${seed}`)

const compared = Math.min(8, clients)
const figures = await runLoad({
  clients,
  seconds,
  seed,
  vaults: 4,
  processes: Math.min(4, clients),
  compared,
  slowHeads: 200,
  halfOpen: 100,
  slowBodies: 16,
  slowReaders: 16,
})

const MiB = 1024 * 1024
const { backups, durationsMs, errors, eventLoop, nuisances } = figures
const at = (values: readonly number[], share: number): number =>
  values[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0
const mean = durationsMs.length / clients
const inSeconds = (ms: number): string => (ms / 1000).toFixed(1)
console.log(`ran for            ${figures.seconds.toFixed(0)} s`)
console.log(`backups            ${durationsMs.length}, ${(figures.bytesSent / MiB).toFixed(0)} MiB sent`)
console.log(`per client         min ${at(backups, 0)}, median ${at(backups, 0.5)}, max ${backups.at(-1)}`)
console.log(`slowest client     ${((100 * at(backups, 0)) / mean).toFixed(0)} % of the mean`)
console.log(`fairness (Jain)    ${fairnessOf(backups).toFixed(4)}`)
console.log(
  `a backup takes     p50 ${inSeconds(at(durationsMs, 0.5))} s, p99 ${inSeconds(at(durationsMs, 0.99))} s, max ${inSeconds(durationsMs.at(-1) ?? 0)} s`,
)
console.log(`receiver's memory  ${(figures.peakBytes / MiB).toFixed(0)} MiB at most`)
console.log(
  `its event loop     late by p50 ${eventLoop.p50} ms, p99 ${eventLoop.p99} ms, max ${eventLoop.max} ms`,
)
console.log(`nuisances          ${nuisances.opened} connections, ${nuisances.closed} ended by the receiver`)
console.log(`restored           ${figures.compared} of ${compared} compared, equal`)
console.log(`errors             ${errors.length}`)
for (const error of errors.slice(0, 20)) console.log(`  ${error}`)

const isFine = errors.length === 0 && figures.compared === compared && at(backups, 0) > 0
process.exitCode = isFine ? 0 : 1
