/** A reading thread's inside: reads, cuts and hashes files with synchronous calls. */
import { parentPort, workerData } from 'node:worker_threads'
import type { SharedBuffers } from './buffer-pool.ts'
import { type FillJob, type FillMessage, fileReading } from './file-reader.ts'
import { serveJobs } from './stream-thread.ts'

const { shared, ahead, buffers } = workerData as { shared: Int32Array; ahead: number; buffers: SharedBuffers }
if (parentPort !== null) {
  serveJobs<FillJob, FillMessage>(parentPort, shared, ahead, fileReading(buffers))
}
