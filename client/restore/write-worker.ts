/** The thread behind WritingThreads: one task after the other, with synchronous calls. */
import { parentPort } from 'node:worker_threads'
import { type BlockTask, type FinishTask, finishFile, writeBlock } from './write-tasks.ts'

parentPort?.on('message', (task: BlockTask | FinishTask) => {
  parentPort?.postMessage(task.kind === 'block' ? writeBlock(task) : finishFile(task))
})
