/**
 * The thread that walks a directory tree. To start it takes 50 ms, as much as reading the command line and loading what a
 * backup needs: whoever knows that there will be a backup may have one started meanwhile.
 */
import { workerModule } from '../worker-module.ts'
import type { ScanJob } from './directory-walk.ts'
import { StreamThread } from './stream-thread.ts'

export type ScanThread = StreamThread<ScanJob, Uint8Array>

/**
 * Batches that it may be ahead of who takes them: about 8,000 entries, 2 MiB. It goes on while everything else is
 * loaded and the receiver is asked.
 */
const batchesAhead = 32

let started: ScanThread | undefined

/** Starts the thread that the next `takeScanThread` gives; to be stopped where it is not taken. */
export function startScanThread(): void {
  started ??= newThread()
}

/** A thread of the caller's own, who closes it. */
export function takeScanThread(): ScanThread {
  const thread = started ?? newThread()
  started = undefined
  return thread
}

/** Ends the thread that was started, where it turns out that nobody will take it. */
export async function stopScanThread(): Promise<void> {
  await started?.close()
  started = undefined
}

function newThread(): ScanThread {
  return new StreamThread(workerModule(import.meta.url, 'scan-worker'), batchesAhead)
}
