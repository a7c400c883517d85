/**
 * `chunkdav serve` with small packs, and upkeep all the time instead of every hour: for `npm run proof:kill`. Its one
 * argument is KillReceiverOptions as JSON.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { destination, pino } from 'pino'
import { openReceiver } from '../../server/receiver.ts'
import { PackChunkStore } from '../../server/store/pack-chunk-store.ts'

export interface KillReceiverOptions {
  readonly dataDir: string
  readonly port: number
  readonly packBytes: number
  readonly trashMs: number
  readonly expireOpenMs: number
  /** Between two times that it prunes, expires open checkpoints and looks through the trash. */
  readonly houseMs: number
  readonly upkeepShare: number
}

const { packBytes, houseMs, ...options } = JSON.parse(process.argv[2] ?? '{}') as KillReceiverOptions
const log = pino({ level: 'debug' }, destination({ dest: 2, sync: true }))
const receiver = await openReceiver({
  ...options,
  log,
  ballast: true,
  openStore: (path) =>
    PackChunkStore.open(path, {
      packBytes,
      onFault: (problem) => log.error({ err: problem }, 'the disk failed'),
    }),
  onListening: ({ url }) => process.stdout.write(`chunkdav listens on ${url}\n`),
})
let isStopping = false
process.once('SIGTERM', () => {
  isStopping = true
})
while (!isStopping) {
  await sleep(houseMs)
  await receiver.schedule.expireTrash()
  await receiver.schedule.prune()
}
await receiver.close()
