/** A reading thread's inside: reads, cuts and hashes files with synchronous calls. */
import { parentPort, workerData } from 'node:worker_threads'
import { hashImplementations } from '../../protocol/hash.ts'
import type { SharedBuffers } from './buffer-pool.ts'
import { type FillJob, type FillMessage, fileReading } from './file-reader.ts'
import { serveJobs } from './stream-thread.ts'

const { shared, ahead, buffers } = workerData as { shared: Int32Array; ahead: number; buffers: SharedBuffers }
if (parentPort !== null) {
  // Under the settings of work (v8-tuning.ts) they would not come compiled from the last time.
  hashImplementations()
  serveJobs<FillJob, FillMessage>(parentPort, shared, ahead, fileReading(buffers))
}
