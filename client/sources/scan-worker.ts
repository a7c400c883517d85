/** The source thread's inside: walks directories with synchronous calls and tells what it finds. */
import { parentPort, workerData } from 'node:worker_threads'
import { type ScanJob, walk } from './directory-walk.ts'
import { serveJobs } from './stream-thread.ts'

const { shared, ahead } = workerData as { shared: Int32Array; ahead: number }
if (parentPort !== null) {
  serveJobs<ScanJob, Uint8Array>(parentPort, shared, ahead, (job, outlet) => walk(job, outlet))
}
