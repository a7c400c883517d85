/**
 * The proof that nothing on the wire harms a receiver: `npm run proof:wire`.
 *
 *     CHUNKDAV_WIRE_REQUESTS   requests, default 100000
 *     CHUNKDAV_SEED            of the requests; by default another one each time
 *     CHUNKDAV_WIRE_ONLY       only the request of this number, as the last run printed it
 */

import { operations } from '../support/wire/valid-request.ts'
import { fuzz } from '../support/wire-fuzzer.ts'

const requests = Number(process.env.CHUNKDAV_WIRE_REQUESTS ?? 100_000)
const seed = Number(process.env.CHUNKDAV_SEED ?? Date.now() % 1_000_000_000)
const { CHUNKDAV_WIRE_ONLY: only } = process.env

console.log(`${requests} requests from seed ${seed}`)
const report = await fuzz({
  requests,
  seed,
  log: (line) => console.log(line),
  ...(only === undefined ? {} : { only: Number(only) }),
})
const MiB = 1024 * 1024
const statuses = [...report.statuses]
  .sort(([a], [b]) => a - b)
  .map(([status, count]) => `${status}: ${count}`)
const never = operations.filter(({ operationId }) => !report.succeeded.has(operationId))
console.log(
  `${report.requests} requests, ${report.answers} answers, ${(report.ms / 1000).toFixed(1)} s, the slowest ${(report.slowest.ms / 1000).toFixed(1)} s: ${report.slowest.text}`,
)
console.log(statuses.join(', '))
console.log(
  `operations: ${operations.length}, never 2xx: ${never.map(({ operationId }) => operationId).join(' ') || 'none'}`,
)
for (const [i, { before, after }] of report.figures.entries()) {
  const of = (name: 'residentBytes' | 'heapBytes'): string =>
    `${Math.round(before[name] / MiB)} → ${Math.round(after[name] / MiB)} MiB`
  console.log(
    `${i === 0 ? 'without' : 'with'} users: resident ${of('residentBytes')}, heap ${of('heapBytes')}, open files ${before.files} → ${after.files}, ` +
      `held ${after.heldBytes}, connections ${after.connections}`,
  )
}
console.log(
  `${report.closedUnsaid} connections closed without notice; ${report.violations.length} violations`,
)
process.exitCode = report.violations.length > 0 ? 1 : 0
