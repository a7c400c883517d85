/** The thread behind WritingThreads: one task after the other, with synchronous calls. */
import { parentPort, workerData } from 'node:worker_threads'
import { hashImplementations } from '../../protocol/hash.ts'
import { posixAvailable } from '../posix.ts'
import { takeOrders } from '../threads.ts'
import { type BlockTask, type FinishTask, finishFile, writeBlock } from './write-tasks.ts'

const { stopped } = workerData as { stopped: Int32Array }
const isStopped = (): boolean => Atomics.load(stopped, 0) === 1

// Both are needed, and would not come compiled from the last time under the settings of work (v8-tuning.ts).
hashImplementations()
posixAvailable()
takeOrders((task: BlockTask | FinishTask) => {
  parentPort?.postMessage(task.kind === 'block' ? writeBlock(task) : finishFile(task, isStopped))
})
